"""Hypercubes: a rank's neighbours differ from it in one binary digit. Only for powers of two."""

from __future__ import annotations

from pydec.errors import ConfigError
from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies, uniform_row


class Hypercube(SymmetricTopology):
    """All 2^d corners; every edge in every round, or one direction after the other.

    Args:
        name: specification that makes it.
        size: 2^d.
        one_peer: whether round t uses only the edges of digit t mod d.
    """

    def __init__(self, name: str, size: int, *, one_peer: bool) -> None:
        dimensions = size.bit_length() - 1
        exact = dimensions if one_peer or dimensions == 1 else None
        super().__init__(name, size, period=max(1, dimensions) if one_peer else 1, finite_time=exact)
        self.dimensions = dimensions
        self._one_peer = one_peer

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        digits = range(slot, slot + 1) if self._one_peer and self.dimensions else range(self.dimensions)
        return uniform_row(rank, (rank ^ (1 << digit) for digit in digits))

    @property
    def degree(self) -> int:
        """Neighbours of every rank in every round."""
        return min(1, self.dimensions) if self._one_peer else self.dimensions

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round."""
        return float(self.degree)

    def _gap(self) -> float:
        return 2 / (1 + self.dimensions)  # eigenvalues (1 + d - 2 j) / (1 + d), j = 0..d

    def _smallest(self) -> float:
        return (1 - self.dimensions) / (1 + self.dimensions)


@topologies.register("hypercube")
def hypercube(size: int) -> Topology:
    """Rank r hears every r xor 2^k, weight 1 / (1 + log2(size)) each; sizes that are powers of two.

    log2(size) messages per rank. Spectral gap 2 / (1 + log2(size)). The smallest eigenvalue is
    -(d - 1) / (d + 1) for d = log2(size): D2 diverges for 8 ranks and more.
    """
    return Hypercube("hypercube", _power_of_two("hypercube", size), one_peer=False)


@topologies.register("one-peer-hypercube")
def one_peer_hypercube(size: int) -> Topology:
    """In round t rank r and r xor 2^(t mod log2(size)) average: 1 message, symmetric, exact; powers of two.

    Exact after log2(size) rounds, in any order of the rounds. A pair adds the same two numbers, so all
    ranks end with the same bits. Base-k does this for every size.
    """
    return Hypercube("one-peer-hypercube", _power_of_two("one-peer-hypercube", size), one_peer=True)


def _power_of_two(name: str, size: int) -> int:
    check_size(size)
    if size & (size - 1):
        near = 1 << (size.bit_length() - 1)
        raise ConfigError(
            f"{name} needs a power of two of ranks, got size={size} (near: {near}, {2 * near}); "
            "base-k is exact for every size, exponential works for every size"
        )
    return size
