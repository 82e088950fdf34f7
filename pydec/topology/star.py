"""The star: one hub that talks to everybody, for comparison with a centre."""

from __future__ import annotations

from pydec.errors import ConfigError
from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies


class Star(SymmetricTopology):
    """Metropolis-Hastings weights on a star: 1 / size on every edge.

    Args:
        size: number of ranks.
        hub: the rank in the middle.
    """

    def __init__(self, size: int, hub: int = 0) -> None:
        super().__init__(f"star:hub={hub}", size, period=1, finite_time=1 if size == 2 else None)
        self.hub = hub

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        n = self.size
        if rank == self.hub:
            return 1 / n, dict.fromkeys((other for other in range(n) if other != rank), 1 / n)
        return (n - 1) / n, {self.hub: 1 / n}

    @property
    def degree(self) -> int:
        """Neighbours of the hub."""
        return self.size - 1

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the ranks: 2 (size - 1) / size."""
        return 2 * (self.size - 1) / self.size

    def _gap(self) -> float:
        return 1 / self.size  # W = I - L / size; L has the eigenvalues 0, 1 and size

    def _smallest(self) -> float:
        return 0.0


@topologies.register("star")
def star(size: int, hub: int = 0) -> Topology:
    """Every rank exchanges with one hub, weight 1 / size: the hub sends size - 1 messages, others one.

    Spectral gap 1 / size for 3 ranks and more. The hub is a hot spot and a single point of failure.

    Args:
        size: number of ranks.
        hub: the rank in the middle.
    """
    check_size(size)
    if not 0 <= hub < size:
        raise ConfigError(f"star needs a hub in [0, {size}), got hub={hub}")
    return Star(size, hub)
