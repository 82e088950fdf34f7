"""The step after which all ranks stop, agreed on from inside their waits, although any of them may die.

A pure state machine: notes that arrived and ranks that died go in, notes for the others come out. What a rank
knows is the step that each rank was in when it heard of the stop, and who lives as far as it knows. It tells
all others its own step, and what it knows once it has heard from all who live. It decides when every one of
them has sent the very same: the latest of these steps. Whoever hears a decision decides the same.

*All survivors decide the same*: let p decide, knowing the steps E of the living V. All of V have sent (E, V),
and each of them listens to V only from then on, so nobody in V ever learns another step; more deaths only
make V smaller. The step of a rank that died right after it had told one of them is therefore counted by all
of them or by none. This is the unanimity of ``pydec.comm.living``, without its rounds: a rank that is ahead
must not wait in one for a rank that waits for a message of the next step.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pydec.errors import FrameError

AT_ONCE = -1
"""In place of a step: this rank does not come to one; nobody waits then."""
_HEAD = struct.Struct("<4sBII")  # b"step", signal (its highest bit: decided), rank that received it, ranks
_UNKNOWN = -2
_DECIDED = 0x80


@dataclass(frozen=True)
class Known:
    """What a rank knows: steps by rank, ``_UNKNOWN`` where it has heard of none, and who lives."""

    steps: tuple[int, ...]
    view: frozenset[int]

    @property
    def complete(self) -> bool:
        """Whether it has heard from all who live."""
        return all(self.steps[rank] != _UNKNOWN for rank in self.view)

    def merged(self, other: Known) -> Known:
        """What both know."""
        return Known(tuple(map(max, self.steps, other.steps)), self.view & other.view)


@dataclass
class LastStep:
    """One rank's part.

    Args:
        rank, size: of this rank.

    Attributes:
        last: what is decided: a step, or ``AT_ONCE``; None before.
    """

    rank: int
    size: int
    last: int | None = None
    _known: Known = field(init=False)
    _heard: dict[int, Known] = field(default_factory=dict)
    _told: Known | None = None  # what the others have been told last

    def __post_init__(self) -> None:
        self._known = Known((_UNKNOWN,) * self.size, frozenset(range(self.size)))

    def announce(self, step: int) -> None:
        """This rank has heard of the stop in a step, or ends ``AT_ONCE``."""
        steps = list(self._known.steps)
        steps[self.rank] = step
        self._known = Known(tuple(steps), self._known.view)

    def lose(self, dead: frozenset[int]) -> None:
        """Ranks are dead."""
        self._known = Known(self._known.steps, self._known.view - dead)

    def hear(self, sender: int, note: bytes) -> tuple[int, int]:
        """Take a note of a rank that is not known to be dead.

        Returns:
            The signal that it is about, and the rank that received it.

        Raises:
            FrameError: it is none.
        """
        kind, signum, origin, size = _HEAD.unpack_from(note) if len(note) >= _HEAD.size else (b"", 0, 0, 0)
        if kind != b"step" or size != self.size or len(note) != _HEAD.size + 9 * size:
            raise FrameError(f"rank {sender} sent {len(note)} bytes that are no word on where to stop")
        rest = note[_HEAD.size :]
        steps = struct.unpack(f"<{size}q", rest[: 8 * size])
        theirs = Known(steps, frozenset(rank for rank in range(size) if rest[8 * size + rank]))
        if sender in self._known.view:
            before = self._heard.get(sender)
            self._heard[sender] = theirs if before is None else before.merged(theirs)
            self._known = self._known.merged(theirs)
            if signum & _DECIDED and self.last is None:
                self.last = _latest(theirs)
        return signum & ~_DECIDED, origin

    def notes(self, signum: int, origin: int) -> list[bytes]:
        """What to send now to all ranks that live: nothing, if they know all that they need.

        Args:
            signum, origin: of the stop; this rank has announced where it is.
        """
        leaving: list[bytes] = []
        known = self._known
        if self._told is None or (known.complete and known != self._told):
            leaving.append(self._note(signum, origin))
            self._told = known
        if self.last is None:
            others = known.view - {self.rank}
            same = known.complete and all(self._heard.get(rank) == known for rank in others)
            if same or AT_ONCE in known.steps:
                self.last = _latest(known)
                leaving.append(self._note(signum | _DECIDED, origin))
        return leaving

    @property
    def others(self) -> list[int]:
        """Who is to be told."""
        return sorted(self._known.view - {self.rank})

    def _note(self, signum: int, origin: int) -> bytes:
        steps, view = self._known.steps, self._known.view
        head = _HEAD.pack(b"step", signum, origin, self.size)
        return head + struct.pack(f"<{self.size}q", *steps) + bytes(rank in view for rank in range(self.size))


def _latest(known: Known) -> int:
    return AT_ONCE if AT_ONCE in known.steps else max(known.steps)
