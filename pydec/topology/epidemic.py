"""Epidemic learning: every round another random graph in which all have s neighbours."""

from __future__ import annotations

import math

from pydec.errors import ConfigError
from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies, uniform_row
from pydec.topology.draw import Draws, Permutation, check_seed, draw_key

_CACHED_ROUNDS = 8


class Epidemic(SymmetricTopology):
    """In a round, places on a circle hear those at s random distances; the ranks are spread on it at random.

    Any s-regular graph under a random order of the ranks has the same second moments, so the
    contraction is that of a uniformly drawn one; and a row costs O(s), whatever the size.

    Args:
        size: number of ranks.
        s: neighbours in every round, less than ``size``; even if ``size`` is odd.
        seed: shared by all peers.
    """

    def __init__(self, size: int, s: int, seed: int) -> None:
        exact = 1 if s == size - 1 else None
        super().__init__(f"epidemic:s={s}", size, period=0, finite_time=exact)
        self.seed = check_seed(seed)
        self.s = s
        self._plans: dict[int, tuple[Permutation, list[int]]] = {}

    def _plan(self, slot: int) -> tuple[Permutation, list[int]]:
        """The round's order of the ranks and the distances to both sides."""
        plan = self._plans.get(slot)
        if plan is None:
            n = self.size
            order = Permutation(n, draw_key(b"pydec epi order", self.seed, slot))
            draws = Draws(draw_key(b"pydec epi shifts", self.seed, slot))
            distances = [1 + d for d in draws.sample((n - 1) // 2, self.s // 2)]
            if self.s % 2:
                distances.append(n // 2)  # its own opposite, so one neighbour
            if len(self._plans) >= _CACHED_ROUNDS:
                self._plans.pop(next(iter(self._plans)), None)
            self._plans[slot] = plan = order, distances
        return plan

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        order, distances = self._plan(slot)
        place = order.position(rank)
        places = {(place + sign * d) % self.size for d in distances for sign in (1, -1)}
        return uniform_row(rank, (order.at(other) for other in places))

    @property
    def degree(self) -> int:
        """Neighbours of every rank in every round."""
        return self.s

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round."""
        return float(self.s)

    @property
    def identity(self) -> str:
        """The seed."""
        return f"seed {self.seed}"

    def _gap(self) -> float:
        return 1.0 - math.sqrt((1 - self.s / (self.size - 1)) / (self.s + 1))


@topologies.register("epidemic")
def epidemic(size: int, s: int | None = None, seed: int = 0) -> Topology:
    """Every round every rank averages with s random others, new ones each time: symmetric.

    The squared distance to the mean falls per round by the expected factor
    (1 - s / (size - 1)) / (s + 1); s = 1 is random matching. This is EL-Oracle; EL-Local, where each
    rank sends to s others of its own choice and averages what arrives, lets the mean drift and is left out.

    Source: de Vos, Farhadkhani, Guerraoui, Kermarrec, Pires, Sharma, "Epidemic Learning: Boosting
    Decentralized Learning with Randomized Communication", NeurIPS 2023, arXiv:2310.01972, algorithm 2.

    Args:
        size: number of ranks.
        s: neighbours in every round, at least 1; even if the size is odd; ceil(log2(size)), or one
            more, if None.
        seed: shared by all peers, in [0, 2^256).
    """
    check_size(size)
    if s is None:
        s = (size - 1).bit_length()
        s += s % 2 * (size % 2)
    if s < 1 <= size - 1:
        raise ConfigError(f"epidemic needs s >= 1 neighbours, got s={s}")
    s = min(s, size - 1)
    if s * size % 2:
        raise ConfigError(
            f"a graph of {size} ranks with s={s} neighbours each would have {s * size / 2} edges; "
            f"use s={s + 1}"
        )
    return Epidemic(size, s, seed)
