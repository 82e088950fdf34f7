"""One virtual peer's life so far, and what holds for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydec.simulate.crowd import Era
from pydec.simulate.learner import Learner
from pydec.simulate.rounds import Bodies, PeerRounds

FOREVER = math.inf


@dataclass(eq=False)
class VirtualPeer:
    """One peer, from its start to its end; who comes in its place later is another one.

    Attributes:
        rank: its place.
        learner: what it learns with.
        era: whose members it gossips with.
        rounds: its part in them.
        steps: local steps taken.
        begun: rounds begun.
        waiting: whether it waits for neighbours; since when.
        died_s: when it died.
        early: packets of rounds that it has not begun, by era and round, then by sender.
    """

    rank: int
    learner: Learner
    era: Era
    steps: int = 0
    begun: int = 0
    waiting: bool = False
    waits_since_s: float = 0.0
    waited_s: float = 0.0
    died_s: float = FOREVER
    over: bool = False
    newcomer: bool = False
    rounds: PeerRounds = field(init=False)
    life: Iterator[float | None] = field(init=False)
    early: dict[tuple[int, int], dict[int, Bodies]] = field(default_factory=dict)
    pose: Callable[[], None] | None = None

    @property
    def living(self) -> bool:
        """Whether it has not died."""
        return self.died_s == FOREVER


@dataclass(frozen=True)
class Rules:
    """What holds for all peers.

    Args:
        steps: of every peer.
        rate: learning rate of a step, as a share of the peak.
        late_s: after which a round goes on without a neighbour; infinite where all are waited for.
        detect_s: after which the others know that a peer is dead.
        handover_s: how long a newcomer takes to get a model.
        seed: of everything that peers draw.
    """

    steps: int
    rate: Callable[[int], float]
    late_s: float = math.inf
    detect_s: float = 0.0
    handover_s: float = 0.0
    seed: int = 0
