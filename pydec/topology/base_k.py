"""Base-(k+1) graphs: exact averaging in finite time for every number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.schedule import Schedule, SparseRound

Ranks = NDArray[np.int64]


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
    return _schedule("base-k", size, k, _shortest)


@topologies.register("simple-base-k")
def simple_base_k(size: int, k: int = 1) -> Topology:
    """The Simple Base-(k+1) graph: as base-k, at times a few rounds longer; symmetric, exact for every size.

    For comparison with publications; base-k is never longer.

    Source: Takezawa, Sato, Bao, Niwa, Yamada, "Beyond Exponential Graph: Communication-Efficient
    Topologies for Decentralized Learning via Finite-time Convergence", NeurIPS 2023,
    arXiv:2305.11420, algorithm 2.

    Args:
        size: number of ranks.
        k: largest number of neighbours in a round, at least 1.
    """
    return _schedule("simple-base-k", size, k, lambda n, base: _simple_base(np.arange(n), base))


def _schedule(name: str, size: int, k: int, plan_of: Callable[[int, int], _Plan]) -> Topology:
    check_size(size)
    if k < 1:
        raise ConfigError(f"{name} needs k >= 1 neighbours per round, got k={k}")
    plan = plan_of(size, k + 1)
    rounds = [_compile(size, steps) for steps in plan] or [_compile(size, [])]
    return Schedule(f"{name}:k={k}", rounds, finite_time=len(plan))


@dataclass(frozen=True)
class _Groups:
    """Ranks that average uniformly among themselves: every row of ``ranks``, shape (groups, members)."""

    ranks: Ranks

    def copied(self, stride: int, offsets: Ranks) -> _Groups:
        """The same among the ranks ``stride * rank + offset``, for every offset."""
        return _Groups((stride * self.ranks + offsets[:, None, None]).reshape(-1, self.ranks.shape[1]))

    def fill(self, own: NDArray[np.float64]) -> tuple[Ranks, Ranks, NDArray[np.float64]]:
        """Set the own weights; the rest as (who hears, whom, weight)."""
        members = self.ranks.shape[1]
        own[self.ranks] = 1 / members
        mine, other = np.nonzero(~np.eye(members, dtype=bool))
        rows = self.ranks[:, mine].ravel()
        return rows, self.ranks[:, other].ravel(), np.full(rows.size, 1 / members)


@dataclass(frozen=True)
class _Stars:
    """Ranks that exchange with each of their partners, weight ``numerator / denominator`` per edge.

    ``ranks`` has shape (stars,), ``partners`` has shape (stars, partners).
    """

    ranks: Ranks
    partners: Ranks
    numerator: int
    denominator: int

    def copied(self, stride: int, offsets: Ranks) -> _Stars:
        """The same among the ranks ``stride * rank + offset``, for every offset."""
        partners = stride * self.partners + offsets[:, None, None]
        return _Stars(
            (stride * self.ranks + offsets[:, None]).ravel(),
            partners.reshape(-1, self.partners.shape[1]),
            self.numerator,
            self.denominator,
        )

    def fill(self, own: NDArray[np.float64]) -> tuple[Ranks, Ranks, NDArray[np.float64]]:
        """Set the own weights; the rest as (who hears, whom, weight)."""
        edges = self.partners.shape[1]
        own[self.ranks] = (self.denominator - edges * self.numerator) / self.denominator
        own[self.partners] = (self.denominator - self.numerator) / self.denominator
        hubs, partners = np.repeat(self.ranks, edges), self.partners.ravel()
        rows = np.concatenate([hubs, partners])
        return rows, np.concatenate([partners, hubs]), np.full(rows.size, self.numerator / self.denominator)


_Step = _Groups | _Stars
_Plan = list[list[_Step]]
"""For each round, what happens in it; no rank is in two steps of one round."""


def _compile(size: int, steps: Sequence[_Step]) -> SparseRound:
    """Rows of one round. Every weight is one integer division, so its bits are the same everywhere."""
    own = np.ones(size)
    entries = [step.fill(own) for step in steps]
    if not entries:
        return SparseRound.from_rows(own.tolist(), [{}] * size)
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    return SparseRound.from_entries(own, rows, columns, values)


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


def _hyper_hypercube(ranks: Ranks, base: int) -> _Plan | None:
    """Algorithm 1: average along each digit of the position in mixed radix; None if n has a factor > base."""
    radices = _radices(len(ranks), base)
    if radices is None:
        return None
    plan: _Plan = []
    stride = 1
    for radix in radices:
        digits = ranks.reshape(-1, radix, stride)  # the middle axis is the digit
        plan.append([_Groups(digits.transpose(0, 2, 1).reshape(-1, radix))])
        stride *= radix
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


def _simple_base(ranks: Ranks, base: int) -> _Plan:
    """Algorithm 2, the Simple Base-(k+1) graph.

    V_0, V_1, ... are parts of a_l base^p_l ranks, one per digit of n, each cut into a_l chunks.
    (1) Every part averages itself. (2) For j = 0, 1, ...: each rank of the later parts meets one
    fresh rank of every chunk of V_j, with a weight that moves the later ranks to the mean of
    V_j and after, as well as the sum over each chunk of V_j. (3) Chunks average again.
    """
    whole = _hyper_hypercube(ranks, base)
    if whole is not None:
        return whole
    parts: list[Ranks] = []  # of every part the chunks, shape (chunks, ranks of a chunk)
    start = 0
    for digit, power in _digits(len(ranks), base):
        count = digit * base**power
        parts.append(ranks[start : start + count].reshape(digit, -1))
        start += count
    inside = [_plan_of(part.ravel(), base) for part in parts]
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


def _plan_of(ranks: Ranks, base: int) -> _Plan:
    plan = _hyper_hypercube(ranks, base)
    if plan is None:
        raise AssertionError(
            f"{len(ranks)} ranks do not factor into at most {base}"
        )  # a digit times a power does
    return plan


def _cyclic(plan: _Plan, t: int) -> list[_Step]:
    return plan[t % len(plan)] if plan else []


def _meet(parts: Sequence[Ranks], base: int) -> list[_Step]:
    """Step 2 for the first of ``parts``: all later ranks meet fresh ranks of each of its chunks."""
    first = parts[0]
    chunk = first.shape[1]
    total = sum(part.size for part in parts)
    later = np.concatenate([part.ravel() for part in parts[1:]])
    # |V_j| / (a_j sum |V_j'|) = chunk / total; fewer than ``chunk`` ranks are later, by the digits of n.
    steps: list[_Step] = [_Stars(later, first[:, : later.size].T, chunk, total)]
    idle = first[:, later.size :].ravel()
    full = idle.size // base * base
    if full:
        steps.append(_Groups(idle[:full].reshape(-1, base)))
    if idle.size - full > 1:
        steps.append(_Groups(idle[None, full:]))
    return steps


def _shortest(size: int, base: int) -> _Plan:
    """Algorithm 3, the Base-(k+1) graph, or the Simple one where that is no longer.

    Size = p q with p the largest divisor that has no prime factor above ``base``: the Simple graph on p
    copies of q ranks, then a hyper-hypercube across the copies.
    """
    simple = _simple_base(np.arange(size), base)
    q = size
    for prime in range(2, min(base, size) + 1):
        while q % prime == 0:
            q //= prime
    p = size // q
    if p == 1 or q == 1:
        return simple
    copies, across = _simple_base(np.arange(q), base), _plan_of(np.arange(p), base)
    both: _Plan = [[step.copied(1, q * np.arange(p)) for step in steps] for steps in copies]
    both += [[step.copied(q, np.arange(q)) for step in steps] for steps in across]
    return both if len(both) < len(simple) else simple
