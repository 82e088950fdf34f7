"""EquiStatic graphs: a few random shifts, with a gap that does not depend on the number of ranks."""

from __future__ import annotations

import math
from collections import Counter

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.circulant import Circulant
from pydec.topology.draw import Draws, check_seed, draw_key


@topologies.register("d-equistatic")
def d_equistatic(size: int, shifts: int | None = None, seed: int = 0) -> Topology:
    """Every rank hears those at a few random distances, the same for all: directed, static.

    W is the mean over the shifts a of (size - 1) / size S^a + I / size, S the cyclic shift: ``shifts``
    messages per rank. 8/3 ln(2 size / p) / eps^2 shifts give norm(W - J) < eps with probability 1 - p;
    size - 1 shifts give J itself. Shifts are different from one another, which the source leaves open.

    Source: Song, Li, Jin, Shi, Yan, Yin, Yuan, "Communication-Efficient Topologies for Decentralized
    Learning with O(1) Consensus Rate", NeurIPS 2022, arXiv:2210.07881, D-EquiStatic and theorem 1.

    Args:
        size: number of ranks.
        shifts: distances at which a rank hears; ceil(log2(size)) if None, at most size - 1.
        seed: shared by all peers, in [0, 2^256).
    """
    return _equistatic("d-equistatic", size, shifts, seed, (1,))


@topologies.register("u-equistatic")
def u_equistatic(size: int, shifts: int | None = None, seed: int = 0) -> Topology:
    """Every rank exchanges with those at a few random distances to both sides: symmetric, static.

    (W + W') / 2 for the W of d-equistatic with the same seed: 2 ``shifts`` messages per rank.

    Source: Song, Li, Jin, Shi, Yan, Yin, Yuan, "Communication-Efficient Topologies for Decentralized
    Learning with O(1) Consensus Rate", NeurIPS 2022, arXiv:2210.07881, U-EquiStatic.

    Args:
        size: number of ranks.
        shifts: distances at which a rank exchanges; ceil(log2(size)) if None, at most size - 1.
        seed: shared by all peers, in [0, 2^256).
    """
    return _equistatic("u-equistatic", size, shifts, seed, (1, -1))


def _equistatic(name: str, size: int, shifts: int | None, seed: int, signs: tuple[int, ...]) -> Topology:
    check_size(size)
    check_seed(seed)
    if shifts is not None and shifts < 1:
        raise ConfigError(f"{name} needs shifts >= 1, got shifts={shifts}")
    wanted = (size - 1).bit_length() if shifts is None else min(shifts, size - 1)
    if size == 1:
        return Circulant(name, 1, [{0: 1.0}])
    counts = Counter(sign * shift % size for shift in _shifts(size, wanted, seed) for sign in signs)
    parts = size * wanted * len(signs)
    # One division of integers each, so that the weights have the same bits everywhere.
    weights = {0: 1 / size} | {offset: n * (size - 1) / parts for offset, n in counts.items()}
    exact = len(counts) == size - 1 and len(set(counts.values())) == 1
    return Circulant(
        f"{name}:shifts={wanted}", size, [weights], finite_time=1 if exact else None, identity=f"seed {seed}"
    )


def _shifts(size: int, wanted: int, seed: int) -> list[int]:
    """Different shifts in [1, size) that reach every rank: drawn again while they share a divisor with it."""
    attempt = 0
    while True:
        drawn = Draws(draw_key(b"pydec shifts", seed, attempt)).sample(size - 1, wanted)
        shifts = [1 + shift for shift in drawn]
        if math.gcd(size, *shifts) == 1:
            return shifts
        attempt += 1
