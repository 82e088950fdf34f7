"""Ranks that died during a training run: who, when, why, and whether enough are left."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from typing import Any

from pydec.comm import pmix
from pydec.comm.team import rank_of
from pydec.comm.words import say_out
from pydec.errors import PydecError
from pydec.train.together import Member

_SILENT = "it died without a word"


class TooFewRanks(PydecError):
    """Fewer ranks live than training was told to go on with; raised by all of them at the same step."""


@dataclass(frozen=True)
class Loss:
    """One rank that died, as another saw it.

    Args:
        rank: who.
        step: steps that the observer had done.
        time_s: seconds since its first step.
        reason: in the dead rank's own words, if it had any; "silent" and for how long, of one that hung.
    """

    rank: int
    step: int
    time_s: float
    reason: str


class Survivors:
    """What one rank knows of those that died.

    Args:
        peer: this rank.
        least: ranks that must live for training to go on.
    """

    def __init__(self, peer: Member, least: int) -> None:
        self._peer = peer
        self._least = least
        self.losses: dict[int, Loss] = {}

    def look(self, step: int, time_s: float) -> None:
        """Note who has died since the last look; the lowest living rank says so on standard error."""
        lost = self._peer.transport.lost()
        if len(lost) == len(self.losses) or not self._peer.transport.tolerant:
            return
        for rank in sorted(lost - self.losses.keys()):
            self.losses[rank] = Loss(rank, step, time_s, self._peer.last_words(rank) or _SILENT)
        living = sorted(set(range(self._peer.size)) - lost)
        if living[0] == self._peer.rank:
            who = ", ".join(str(rank) for rank in sorted(lost))
            print(
                f"pydec: lost rank{'s' if len(lost) > 1 else ''} {who} (step {step}); {len(living)} of "
                f"{self._peer.size} ranks go on",
                file=sys.stderr,
                flush=True,
            )
            for rank in sorted(lost):
                say_out(rank_of(self._peer.transport, rank))

    def check(self, members: tuple[int, ...]) -> None:
        """Raise TooFewRanks if too few are left of what all survivors have agreed on."""
        if len(members) < self._least:
            gone = sorted(set(range(self._peer.size)) - {*members})
            raise TooFewRanks(
                f"{len(members)} of {self._peer.size} ranks are left, fewer than --min-ranks {self._least}: "
                f"lost {', '.join(map(str, gone))}; what they had is in the run directory"
            )

    def rows(self) -> list[dict[str, Any]]:
        """For ``summary.json``: ``rank``, ``step``, ``time_s``, ``reason`` of each, in the order of loss."""
        found = sorted(self.losses.values(), key=lambda loss: (loss.time_s, loss.rank))
        return [asdict(loss) for loss in found]


def fault_tolerance(peer: Member) -> str:
    """What a death does to this job, in one line for its start."""
    if peer.transport.tolerant:
        return "a rank that dies is left out, and the others go on (Open MPI with ULFM)"
    if why := pmix.obstacle():
        return f"a rank that dies ends the job: {why}"
    return (
        "a rank that dies ends the job; pydec run with Open MPI, or mpirun --with-ft ulfm, lets others go on"
    )
