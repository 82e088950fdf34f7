"""Requests of the averages of two: how they are numbered, repeated where messages are lost, and told apart.

``gossip/pairwise.py`` says what requests are for.

**Messages that are lost.** A request that was taken, and is not answered for an eighth of the transport's
deadline, is sent again under its number; whoever has answered or refused that number says the same again, so
an average takes place once or, on both sides, not at all. A request also claims, in the bits above its word,
that its sender has answered the neighbour's newest one: if that still waits for it, the answer was lost, the
two have not crossed, and nothing may be taken back. After ``REPEATS`` repeats that were taken the requester
raises PeerTimeout: nobody is engaged for longer than (REPEATS + 1) / 8 deadlines with a neighbour that takes
messages; one that takes none is late at the end, or gone.

**A neighbour that is restarted** must come in another epoch, as nobody can tell whether an average that it
had begun took place. In the same epoch it counts anew, and a ProtocolError names it: for a number more than
``WINDOW`` above the last or more than ``LATE`` below it, for an older number that comes ``AGAIN`` times in a
row (a doubled message comes once more), and for the last number with another content.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import inf

import numpy as np
from numpy.typing import NDArray

from pydec.errors import PeerTimeout, ProtocolError
from pydec.gossip.packets import check_window

LATE = 64
"""How far below the last request of a neighbour a doubled one may be."""
REPEATS = 8
"""How often a request that nobody answers is sent again."""
AGAIN = 3
"""How often in a row an older request must come to be that of a neighbour that was restarted."""
_HEAD_BYTES = 4096
_CURE = "was it restarted? Restart all ranks, or give them another epoch"


class Word(IntEnum):
    """What a message of kind PAIR is; the two lowest bits of its flags."""

    REQUEST = 1
    ANSWER = 2
    REFUSAL = 3


_CLAIMED = 1 << 13  # requests are told apart by so many numbers in a claim


def _claim(sequence: int) -> int:
    return 1 | sequence % _CLAIMED << 1


@dataclass
class Request:
    """An average that this rank has started.

    Args:
        peer: who was asked.
        number: of the packet.
        sequence: of the request.
        length: of the message, its header included.
        taken_s: when the message was last taken.
        repeats: how often it was sent again.
    """

    peer: int
    number: int
    sequence: int
    length: int
    taken_s: float = inf
    repeats: int = 0

    def is_claimed(self, claim: int) -> bool:
        """Whether the claim of a request from the same neighbour says that it has answered this one."""
        return claim == _claim(self.sequence)

    def due(self, now_s: float, deadline_s: float) -> bool:
        """Whether it shall be sent again now; counts the repeat.

        Raises:
            PeerTimeout: it was repeated often enough.
        """
        every_s = deadline_s / REPEATS
        if now_s - self.taken_s < every_s:
            return False
        if self.repeats == REPEATS:
            raise PeerTimeout(
                self.peer,
                f"took request {self.sequence} {1 + REPEATS} times and did not answer within {every_s:.3g} s "
                f"each time: this rank or that one, {_CURE}",
            )
        self.repeats += 1
        self.taken_s = inf
        return True


class Heard:
    """The newest request of one neighbour, and what it was told.

    Args:
        peer: the neighbour.

    Attributes:
        sequence: its number, 0 before the first.
        answer: the message that answered it; None where it was refused, or taken back by the neighbour.
    """

    def __init__(self, peer: int) -> None:
        self.sequence = 0
        self.answer: NDArray[np.uint8] | None = None
        self._peer = peer
        self._head = b""
        self._older, self._row = 0, 0

    @property
    def claim(self) -> int:
        """What a request to the neighbour says of its own newest: 14 bits, 0 if that was not answered."""
        return 0 if self.answer is None else _claim(self.sequence)

    def is_new(self, sequence: int, body: NDArray[np.uint8]) -> bool:
        """Whether a request is newer than all before; what it holds tells a repeat from another.

        Raises:
            ProtocolError: the neighbour cannot have counted to that number, or counts anew.
        """
        check_window(self._peer, "request", sequence, self.sequence, late=LATE)
        if sequence > self.sequence:
            return True
        if sequence == self.sequence:
            if body[:_HEAD_BYTES].tobytes() != self._head:
                raise ProtocolError(self._peer, f"sent two requests with the number {sequence}: {_CURE}")
            return False
        self._row = self._row + 1 if sequence == self._older else 1
        self._older = sequence
        if self._row == AGAIN:
            which = f"request {sequence} {AGAIN} times after {self.sequence}"
            raise ProtocolError(self._peer, f"sent {which}: {_CURE}")
        return False

    def take(self, sequence: int, body: NDArray[np.uint8]) -> None:
        """This request is the newest now, and not answered."""
        self.sequence, self.answer = sequence, None
        self._head = body[:_HEAD_BYTES].tobytes()
        self._older = self._row = 0
