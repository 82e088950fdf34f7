"""Which ranks have ended: a set that grows as ranks tell one another, and the messages that carry it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into
from pydec.topology.base import Topology

_LAST = 1  # flag of a sender's last message


class Ending:
    """What one rank knows of all: who has ended, and who is gone.

    Args:
        rank: its number.
        topology: who hears whom, the same in every round.
        epoch: written into every frame.

    Attributes:
        complete: whether all ranks have ended that news can come from: those that are gone have nothing to
            say, and those that only they could be heard through are out of reach.
    """

    def __init__(self, rank: int, topology: Topology, epoch: int) -> None:
        self._rank = rank
        self._topology = topology
        self._epoch = epoch
        self._bytes = self.note_bytes(topology.size) // 2
        self._everyone = (1 << topology.size) - 1
        self._gone = 0
        self.reset()

    @staticmethod
    def note_bytes(size: int) -> int:
        """Length of what follows the header."""
        return 2 * -(-size // 8)

    @property
    def known(self) -> int:
        """All that is known, as one number."""
        return self._ended | self._gone << self._topology.size

    def add(self, rank: int, *, gone: bool = False) -> None:
        """A rank has ended, or is gone."""
        if gone:
            self._gone |= 1 << rank
        else:
            self._ended |= 1 << rank
        self._judge()

    def hear(self, frame: Frame, message: NDArray[np.uint8]) -> bool:
        """Take in a message of kind ENDED; whether it is its sender's last."""
        body = message[HEADER_BYTES:].tobytes()
        ended, gone = (
            int.from_bytes(half, "little") & self._everyone
            for half in (body[: self._bytes], body[self._bytes :])
        )
        self._ended |= ended
        self._gone |= gone
        self._judge()
        return bool(frame.flags & _LAST)

    def note(self, *, last: bool) -> NDArray[np.uint8]:
        """The message that says what is known, in memory of its own."""
        message = np.empty(HEADER_BYTES + 2 * self._bytes, np.uint8)
        body = b"".join(part.to_bytes(self._bytes, "little") for part in (self._ended, self._gone))
        frame = Frame(
            kind=Kind.ENDED, sender=self._rank, round=0, bucket=0, buckets=1, offset=0, count=0,
            length=len(body), epoch=self._epoch, flags=_LAST if last else 0,
        )  # fmt: skip
        pack_into(message, frame)
        message[HEADER_BYTES:] = np.frombuffer(body, np.uint8)
        return message

    def reset(self) -> None:
        """Nobody has ended; who is gone stays so."""
        self._ended = 0
        self.complete = False

    def _judge(self) -> None:
        if self.complete:
            return
        reached, fresh = 1 << self._rank, [self._rank]
        while fresh:
            for other in self._topology.neighbors(fresh.pop(), 0):
                if not (reached | self._gone) >> other & 1:
                    reached |= 1 << other
                    fresh.append(other)
        self.complete = reached & ~self._ended == 0
