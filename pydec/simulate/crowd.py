"""Who is there: peers that die in mid-step, newcomers in their places, and eras of fixed members between.

An era is what an epoch of the ledger is to a run: members, a graph of them, and the round from which both
hold. Whoever dies is left out by the others as soon as they know, and its place is free for a newcomer in the
next era. Newcomers take the model of a member that enters that era.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.simulate.known import Known
from pydec.simulate.rounds import Bodies
from pydec.topology.base import Topology
from pydec.topology.members import Members

_KEPT = 256  # steps whose draws are remembered


@dataclass(frozen=True)
class Churn:
    """How members change.

    Args:
        leave: chance of a peer to die in a step.
        join: chance of a free place to be taken in the next era.
    """

    leave: float = 0.0
    join: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.leave < 1.0:
            raise ConfigError(f"--churn must be a chance in [0, 1) for each step, got {self.leave:g}")
        if not 0.0 <= self.join <= 1.0:
            raise ConfigError(f"--churn LEAVE,JOIN: JOIN must be a chance in [0, 1], got {self.join:g}")


def churn(text: str) -> Churn:
    """What ``--churn`` says: LEAVE or LEAVE,JOIN.

    Raises:
        ConfigError: no numbers, or out of their range.
    """
    if not text:
        return Churn()
    try:
        return Churn(*map(float, text.split(",")))
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"--churn must be LEAVE or LEAVE,JOIN, such as 0.01 or 0.01,0.5, got {text!r}"
        ) from None


@dataclass(eq=False)
class Era:
    """Members that gossip with one another.

    Attributes:
        number: counted from 0.
        members: in order.
        topology: of them, over all places.
        start: round from which it holds.
        seed: what its schedules and compressors draw from.
        gone: members that all know to be dead.
        guests: newcomers without a model yet, by the member that is to give them its own.
        mail: packets for newcomers that have no model yet: by place and round, by sender.
        next: the era after this one, once somebody enters it.
    """

    number: int
    members: tuple[int, ...]
    topology: Topology
    start: int
    seed: int
    gone: set[int] = field(default_factory=set)
    guests: dict[int, list[int]] = field(default_factory=dict)
    mail: dict[tuple[int, int], dict[int, Bodies]] = field(default_factory=dict)
    next: Era | None = None

    def __post_init__(self) -> None:
        self.places = frozenset(self.members)

    def later(self) -> Iterator[Era]:
        """This era and those after it."""
        era: Era | None = self
        while era is not None:
            yield era
            era = era.next

    def expects(self, rank: int) -> bool:
        """Whether somebody is to come to that place."""
        return any(rank in guests for guests in self.guests.values())


class Crowd:
    """All places and who is in them.

    Args:
        topology: of the first era, over all places.
        make: the topology of so many members, on a seed.
        churn: how members change.
        rounds: of an era; at least 1.
        seed: decides all.
    """

    def __init__(
        self, topology: Topology, make: Callable[[int, int], Topology], churn: Churn, rounds: int, seed: int
    ) -> None:
        self.size = topology.size
        self.first = Era(0, tuple(range(self.size)), Known(topology), 0, seed)
        self._make, self._churn, self._rounds, self._seed = make, churn, rounds, seed
        self._living = set(range(self.size))
        self._draws: OrderedDict[int, NDArray[np.float64]] = OrderedDict()

    def dies(self, rank: int, step: int) -> float | None:
        """When in a step its peer dies, as a share of it; None if it does not."""
        if not self._churn.leave:
            return None
        if step not in self._draws:
            self._draws[step] = np.random.default_rng([self._seed, 15, step]).random((2, self.size))
            while len(self._draws) > _KEPT:
                self._draws.popitem(last=False)
        chance, when = self._draws[step][:, rank]
        return float(when) if chance < self._churn.leave else None

    def era_at(self, round: int, current: Era) -> Era:
        """The era of a round that a member of ``current`` is about to begin."""
        if not self._churn.leave or round < current.start + self._rounds:
            return current
        if current.next is None:
            self._decide(current, round)
        assert current.next is not None
        return current.next

    def _decide(self, current: Era, round: int) -> None:
        """The first to come to the end of an era finds the members of the next."""
        number = current.number + 1
        draw = np.random.default_rng([self._seed, 16, number])
        old = sorted(self._living)
        free = sorted(set(range(self.size)) - self._living)
        new = [
            rank
            for rank, chance in zip(free, draw.random(len(free)), strict=True)
            if chance < self._churn.join
        ]
        guests: dict[int, list[int]] = {}
        for rank, sponsor in zip(new, draw.integers(len(old), size=len(new)).tolist(), strict=True):
            guests.setdefault(old[sponsor], []).append(rank)
        members = tuple(sorted([*old, *new]))
        seed = int(draw.integers(2**32))
        topology = Known(Members(self._make(len(members), seed), members, self.size, round))
        current.next = Era(number, members, topology, round, seed, guests=guests)
        self._living.update(new)

    def lost(self, rank: int, era: Era) -> list[int]:
        """The peer of a place, in ``era``, is dead: that place, and those of newcomers it was to welcome."""
        self._living.discard(rank)
        gone = [rank]
        for later in era.later():
            for orphan in later.guests.pop(rank, []):
                gone += self.lost(orphan, later)
        return gone
