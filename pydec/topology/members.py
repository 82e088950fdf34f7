"""A topology of m members on the ranks of a larger cluster, from a round on: the graph of a later epoch."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.errors import ConfigError
from pydec.topology.base import Topology


class Members(Topology):
    """``places`` with its places taken by ranks; all other ranks rest, and hear and tell nobody.

    The schedule begins at ``start``, so that what is exact in finite time is so from there on. Ranks that do
    not take part keep what they have: as a matrix it is the identity on them.

    Args:
        places: topology of as many places as there are members.
        members: the rank of every place.
        size: ranks of the cluster.
        start: round that is the schedule's round 0. Earlier rounds continue it backwards, for those who ask
            who is met in a period; a schedule without a period has none.

    Raises:
        ConfigError: members that are not as many, twice the same, or no ranks of the cluster.
    """

    def __init__(self, places: Topology, members: Sequence[int], size: int, start: int = 0) -> None:
        if len(members) != places.size or len({*members}) != len(members):
            raise ConfigError(
                f"{places.name} has {places.size} places, which need as many different members, got "
                f"{list(members)}"
            )
        if not all(0 <= rank < size for rank in members):
            raise ConfigError(f"members are ranks in [0, {size}), got {list(members)}")
        super().__init__(places.name, size, places.period, places.finite_time)
        self.places = places
        self.members = tuple(members)
        self.start = start
        self._place = {rank: place for place, rank in enumerate(members)}

    def _slot(self, round: int) -> int:
        if round < 0:
            raise ValueError(f"a round is counted from 0, got round={round}")
        since = round - self.start
        return since % self.period if self.period else max(0, since)

    def place_round(self, round: int) -> int:
        """Which round of the places' topology that is."""
        return self._slot(round)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        if rank not in self._place:
            return 1.0, {}
        own, heard = self.places.row(self._place[rank], slot)
        return own, dict(sorted((self.members[place], weight) for place, weight in heard.items()))

    def _listeners(self, rank: int, slot: int) -> list[int]:
        if rank not in self._place:
            return []
        return sorted(self.members[place] for place in self.places.listeners(self._place[rank], slot))

    @property
    def degree(self) -> int:
        """Of the places."""
        return self.places.degree

    @property
    def messages_per_round(self) -> float:
        """Of a member."""
        return self.places.messages_per_round

    @property
    def is_symmetric(self) -> bool:
        """As the places'."""
        return self.places.is_symmetric

    @property
    def is_doubly_stochastic(self) -> bool:
        """As the places'."""
        return self.places.is_doubly_stochastic

    @property
    def identity(self) -> str:
        """Of the places, with who takes them."""
        return f"{self.places.identity} {list(self.members)} from {self.start}".strip()

    def _gap(self) -> float:
        """Among the members."""
        return self.places.spectral_gap()
