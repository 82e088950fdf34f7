"""The view: who is in, in which order, from which round on. Everything reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """One epoch's membership.

    Args:
        epoch: number of the epoch; every gossip frame carries it.
        members: ranks of the members, in order; a member's place is its row in the topology.
        seed: seed of everything that all members must draw alike, such as random topologies.
        start_round: training round from which the view holds; until then the one before does.
    """

    epoch: int
    members: tuple[int, ...]
    seed: int
    start_round: int = 0

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self.members)
