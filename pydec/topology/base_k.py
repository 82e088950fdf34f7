"""Base-(k+1) graphs: exact averaging in finite time for every number of ranks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.schedule import Schedule, SparseRound


@topologies.register("base-k")
def base_k(size: int, k: int = 1) -> Topology:
    """At most k neighbours per round, exact after one period for every size; symmetric.

    The period is at most 2 log(size) / log(k + 1) + 2 rounds. The shorter of the Base-(k+1) and the
    Simple Base-(k+1) graph is taken.

    Source: Takezawa, Sato, Bao, Niwa, Yamada, "Beyond Exponential Graph: Communication-Efficient
    Topologies for Decentralized Learning via Finite-time Convergence", NeurIPS 2023,
    arXiv:2305.11420, algorithms 1 to 3. Two freedoms are used: a part that waits for a larger one
    repeats its rounds, and ranks left over when parts meet average in groups; neither changes exact
    values, both average gradient noise that training adds in the meantime.

    Args:
        size: number of ranks.
        k: largest number of neighbours in a round, at least 1.
    """
    check_size(size)
    if k < 1:
        raise ConfigError(f"base-k needs k >= 1 neighbours per round, got k={k}")
    plan = _shortest(size, k + 1)
    rounds = [_compile(size, steps) for steps in plan] or [_compile(size, [])]
    return Schedule(f"base-k:k={k}", rounds, finite_time=len(plan))


class _Group(NamedTuple):
    """Ranks that average uniformly among themselves."""

    ranks: Sequence[int]


class _Star(NamedTuple):
    """A rank that exchanges with each of its partners, weight ``numerator / denominator`` per edge."""

    rank: int
    partners: Sequence[int]
    numerator: int
    denominator: int


_Step = _Group | _Star
_Plan = list[list[_Step]]
"""For each round, what happens in it; no rank is in two steps of one round but as a star's partner."""


def _compile(size: int, steps: Sequence[_Step]) -> SparseRound:
    """Rows of one round. Every weight is one integer division, so its bits are the same everywhere."""
    own = [1.0] * size
    heard: list[dict[int, float]] = [{} for _ in range(size)]
    for step in steps:
        if isinstance(step, _Group):
            weight = 1 / len(step.ranks)
            for rank in step.ranks:
                own[rank] = weight
                heard[rank] = {other: weight for other in step.ranks if other != rank}
        else:
            rank, partners, numerator, denominator = step
            weight = numerator / denominator
            own[rank] = (denominator - len(partners) * numerator) / denominator
            for partner in partners:
                own[partner] = (denominator - numerator) / denominator
                heard[rank][partner] = heard[partner][rank] = weight
    return SparseRound.from_rows(own, heard)


@lru_cache(maxsize=4096)
def _radices(n: int, base: int) -> tuple[int, ...] | None:
    """Fewest factors of at most ``base`` whose product is n, largest first; None if there are none."""
    if n == 1:
        return ()
    if n <= base:
        return (n,)
    best: tuple[int, ...] | None = None
    for factor in range(base, 1, -1):
        rest = _radices(n // factor, base) if n % factor == 0 else None
        if rest is not None and (best is None or len(rest) + 1 < len(best)):
            best = (factor, *rest)
    return best


def _hyper_hypercube(ranks: Sequence[int], base: int) -> _Plan | None:
    """Algorithm 1: average along each digit of the position in mixed radix; None if n has a factor > base."""
    n = len(ranks)
    radices = _radices(n, base)
    if radices is None:
        return None
    plan: _Plan = []
    stride = 1
    for radix in radices:
        span = stride * radix
        plan.append(
            [
                _Group([ranks[start + digit * stride] for digit in range(radix)])
                for block in range(0, n, span)
                for start in range(block, block + stride)
            ]
        )
        stride = span
    return plan


def _digits(n: int, base: int) -> list[tuple[int, int]]:
    """Non-zero digits of n as (digit, power), highest power first; integers only, as floats misjudge 3^5."""
    digits = []
    power = 0
    while n:
        n, digit = divmod(n, base)
        if digit:
            digits.append((digit, power))
        power += 1
    return digits[::-1]


def _simple_base(ranks: Sequence[int], base: int) -> _Plan:
    """Algorithm 2, the Simple Base-(k+1) graph.

    V_0, V_1, ... are parts of a_l base^p_l ranks, one per digit of n, each cut into a_l chunks.
    (1) Every part averages itself. (2) For j = 0, 1, ...: each rank of the later parts meets one
    fresh rank of every chunk of V_j, with a weight that moves the later ranks to the mean of
    V_j and after, as well as the sum over each chunk of V_j. (3) Chunks average again.
    """
    whole = _hyper_hypercube(ranks, base)
    if whole is not None:
        return whole
    parts: list[list[Sequence[int]]] = []  # the chunks of every part
    start = 0
    for digit, power in _digits(len(ranks), base):
        chunk = base**power
        parts.append([ranks[start + i * chunk : start + (i + 1) * chunk] for i in range(digit)])
        start += digit * chunk
    inside = [_plan_of([rank for chunk in part for rank in chunk], base) for part in parts]
    again = [[_plan_of(chunk, base) for chunk in part] for part in parts]
    again[-1] = [inside[-1]]  # the last part meets nobody later and stays equal throughout
    joined = len(inside[0])  # from this round on every part is equal within itself
    plan: _Plan = []
    for t in range(joined + 1 + len(again[0][0])):
        steps: list[_Step] = []
        j = t - joined
        if 0 <= j < len(parts) - 1:
            steps += _meet(parts[j:], base)
        for part in range(len(parts)):
            if t < joined:
                steps += _cyclic(inside[part], t)
            elif part < j or (part == len(parts) - 1 <= j):
                for chunk_plan in again[part]:
                    steps += _cyclic(chunk_plan, j - part - 1)
        plan.append(steps)
    return plan


def _plan_of(ranks: Sequence[int], base: int) -> _Plan:
    plan = _hyper_hypercube(ranks, base)
    if plan is None:
        raise AssertionError(
            f"{len(ranks)} ranks do not factor into at most {base}"
        )  # a digit times a power does
    return plan


def _cyclic(plan: _Plan, t: int) -> list[_Step]:
    return plan[t % len(plan)] if plan else []


def _meet(parts: Sequence[Sequence[Sequence[int]]], base: int) -> list[_Step]:
    """Step 2 for the first of ``parts``: all later ranks meet fresh ranks of each of its chunks."""
    first = parts[0]
    chunk = len(first[0])
    total = sum(len(piece) for part in parts for piece in part)
    later = [rank for part in parts[1:] for piece in part for rank in piece]
    # |V_j| / (a_j sum |V_j'|) = chunk / total; fewer than ``chunk`` ranks are later, by the digits of n.
    steps: list[_Step] = [
        _Star(rank, [piece[i] for piece in first], chunk, total) for i, rank in enumerate(later)
    ]
    idle = [rank for piece in first for rank in piece[len(later) :]]
    steps += [_Group(idle[i : i + base]) for i in range(0, len(idle) - 1, base)]
    return steps


def _shortest(size: int, base: int) -> _Plan:
    """Algorithm 3, the Base-(k+1) graph, or the Simple one where that is no longer.

    Size = p q with p the largest divisor that has no prime factor above ``base``: the Simple graph on p
    copies of q ranks, then a hyper-hypercube across the copies.
    """
    simple = _simple_base(range(size), base)
    q = size
    for prime in range(2, min(base, size) + 1):
        while q % prime == 0:
            q //= prime
    p = size // q
    if p == 1 or q == 1:
        return simple
    copies = [_simple_base(range(copy * q, (copy + 1) * q), base) for copy in range(p)]
    across = [_plan_of(range(i, size, q), base) for i in range(q)]
    both: _Plan = [[step for one in copies for step in one[t]] for t in range(len(copies[0]))]
    both += [[step for one in across for step in one[t]] for t in range(len(across[0]))]
    return both if len(both) < len(simple) else simple
