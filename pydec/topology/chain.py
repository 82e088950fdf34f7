"""The chain: a ring with one link missing."""

from __future__ import annotations

import math

from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies


class Chain(SymmetricTopology):
    """Metropolis-Hastings weights on a path: 1/3 on every edge, 1/2 on the only one of two ranks."""

    def __init__(self, size: int) -> None:
        super().__init__("chain", size, period=1, finite_time=1 if size == 2 else None)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        heard = [other for other in (rank - 1, rank + 1) if 0 <= other < self.size]
        parts = min(3, self.size)
        return (parts - len(heard)) / parts, dict.fromkeys(heard, 1 / parts)

    @property
    def degree(self) -> int:
        """Neighbours of a rank that is not at an end."""
        return min(2, self.size - 1)

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the ranks: 2 (size - 1) / size."""
        return 2 * (self.size - 1) / self.size

    def _gap(self) -> float:
        return 2 / 3 * (1 - math.cos(math.pi / self.size))

    def _smallest(self) -> float:
        if self.size == 2:
            return 0.0
        return 1 - 2 / 3 * (1 - math.cos(math.pi * (self.size - 1) / self.size))


@topologies.register("chain")
def chain(size: int) -> Topology:
    """Rank r exchanges with r - 1 and r + 1, weight 1/3 each, and nothing joins the ends: 2 messages at most.

    Spectral gap 2/3 (1 - cos(pi / size)) for 3 ranks and more: a quarter of the ring's. The smallest
    eigenvalue stays above -1/3, so D2 may be used.
    """
    check_size(size)
    return Chain(size)
