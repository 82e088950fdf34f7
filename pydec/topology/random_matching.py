"""Random pairs, drawn anew every round from a shared seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies
from pydec.topology.draw import Permutation, check_seed, draw_key

_CACHED_ROUNDS = 8  # several rounds may be in flight at once


class RandomMatching(SymmetricTopology):
    """Every round pairs the ranks at random; the two of a pair average. One rank idles if size is odd.

    The pairs are a function of (size, seed, round) and of nothing else, so peers need not talk to agree on
    them and a later joiner sees the same ones. Each of the possible perfect matchings is equally
    likely (above 4096 ranks up to the quality of a keyed permutation, and then a row costs O(1)). The
    squared distance to the mean falls per round by the expected factor (size - 2) / (2 (size - 1)) for
    even sizes and 1/2 for odd ones.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        check_size(size)
        super().__init__("random-matching", size, period=0, finite_time=1 if size == 2 else None)
        self.seed = check_seed(seed)
        self._orders: dict[int, Permutation] = {}

    def partners(self, round: int) -> NDArray[np.int64]:
        """Partner of every rank in that round, shape (size,), int64; an idle rank is its own."""
        order = self._order(self._slot(round)).table()
        partners = np.arange(self.size, dtype=np.int64)
        left, right = order[0 : self.size - self.size % 2 : 2], order[1::2]
        partners[left], partners[right] = right, left
        return partners

    def _order(self, slot: int) -> Permutation:
        """The round's order of the ranks, in which consecutive ones are pairs."""
        order = self._orders.get(slot)
        if order is None:
            order = Permutation(self.size, draw_key(b"pydec matching", self.seed, slot))
            if len(self._orders) >= _CACHED_ROUNDS:
                self._orders.pop(next(iter(self._orders)), None)
            self._orders[slot] = order
        return order

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        order = self._order(slot)
        place = order.position(rank) ^ 1
        return (1.0, {}) if place == self.size else (0.5, {order.at(place): 0.5})

    @property
    def identity(self) -> str:
        """The seed."""
        return f"seed {self.seed}"

    @property
    def degree(self) -> int:
        """One, or zero if there is nobody else."""
        return min(1, self.size - 1)

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the ranks: 1 - (1 / size if size is odd)."""
        return (self.size - self.size % 2) / self.size

    def _gap(self) -> float:
        n = self.size
        # E[W'W] = E[W] because a matching's matrix is a projection; its second eigenvalue is
        # 1 - p n / (2 (n - 1)), p the probability of having a partner.
        return 1.0 - float(np.sqrt(1.0 - self.messages_per_round * n / (2 * (n - 1))))


@topologies.register("random-matching")
def random_matching(size: int, seed: int = 0) -> Topology:
    """Ranks average in random pairs, new ones every round: at most one message, symmetric.

    Args:
        size: number of ranks; if odd, one rank idles in each round.
        seed: shared by all peers, in [0, 2^256).
    """
    return RandomMatching(size, seed)
