"""What a rank tells the supervisor of its job: that it has begun, taken a step, left in order, who is out;
which checkpoint counts, because its files may be on disks that the supervisor does not see; and what came of
a request for more ranks.

No launcher tells: Open MPI with fault tolerance says nothing of a rank that was killed, and ends with
status 0 even if all were. A word goes to standard error, which launchers carry from every host, between two
characters that no text has; ``pydec run`` takes it out again.
"""

from __future__ import annotations

import os
import re

VARIABLE = "PYDEC_SUPERVISED"
"""Environment variable that ``pydec run`` sets, to a file with its orders; without it nothing is said."""
_WORD = re.compile(
    rb"\x1epydec (\d{1,9}) (?:([+-])\x1f|([*!])\x1f\n|=(\d{1,18})\x1f\n"
    rb"|([JAN])(\d{1,18}) ([^\x1e\x1f\n]{0,400})\x1f\n)"
)
_START = b"\x1epydec "
_MOST_REASON = 400
_LONGEST = 40 + _MOST_REASON
JOINED, ALONE, NOT_HERE = "J", "A", "N"
"""Newcomers go on with the others from a step; the others go on without them; none can join while it runs."""


def say(rank: int, *, begins: bool) -> None:
    """Tell the supervisor, if there is one, that this rank begins or leaves."""
    _write(rank, b"+\x1f" if begins else b"-\x1f")


def say_stepped(rank: int) -> None:
    """Tell the supervisor, if there is one, that this rank has taken its first step since it began.

    Open MPI passes whole lines on, and this word is not to wait for the next one.
    """
    _write(rank, b"*\x1f\n")


def say_out(rank: int) -> None:
    """Tell the supervisor, if there is one, that a rank is silent and the others go on without it."""
    _write(rank, b"!\x1f\n")


def say_counted(rank: int, step: int) -> None:
    """Tell the supervisor, if there is one, that all ranks have the checkpoint of a step, with its copies."""
    _write(rank, b"=%d\x1f\n" % step)


def say_growth(rank: int, what: str, step: int = 0, reason: str = "") -> None:
    """Tell the supervisor, if there is one, what came of its order to take newcomers in.

    Args:
        rank: of this process.
        what: ``JOINED``, ``ALONE`` or ``NOT_HERE``.
        step: from which the job goes on, where it does.
        reason: why not, where they did not.
    """
    plain = re.sub(rb"[\x00-\x1f\x7f]+", b" ", reason.encode())[:_MOST_REASON]
    _write(rank, b"%b%d %b\x1f\n" % (what.encode(), step, plain))


def _write(rank: int, mark: bytes) -> None:
    if os.environ.get(VARIABLE):
        try:
            os.write(2, b"\x1epydec %d %b" % (rank, mark))
        except OSError:
            pass  # nobody listens any more


class Listener:
    """Takes the words out of a stream, fed in pieces of any size.

    Attributes:
        begun: ranks that began.
        left: of these, the ranks that have left in order since.
        stepped: ranks that have taken a step of training.
        out: ranks that others have left out because they were silent.
        counted: step of the newest checkpoint that all ranks have; -1 before the first.
        growth: what came of orders to take newcomers in, oldest first; see ``say_growth``.
    """

    def __init__(self) -> None:
        self.begun: set[int] = set()
        self.left: set[int] = set()
        self.stepped: set[int] = set()
        self.out: set[int] = set()
        self.counted = -1
        self.growth: list[tuple[str, int, str]] = []
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        """The data without words; what may be the start of one waits for the rest."""
        data = _WORD.sub(self._hear, self._kept + data)
        at = data.rfind(b"\x1e")
        tail = data[at:] if at >= 0 else b""
        partial = 0 < len(tail) < _LONGEST and (tail.startswith(_START) or _START.startswith(tail))
        self._kept = tail if partial else b""
        return data[: len(data) - len(self._kept)]

    def finish(self) -> bytes:
        """What is left at the end of the stream."""
        kept, self._kept = self._kept, b""
        return kept

    def lost(self) -> list[int]:
        """Ranks that began and never left."""
        return sorted(self.begun - self.left)

    def _hear(self, word: re.Match[bytes]) -> bytes:
        rank = int(word[1])
        if word[4]:
            self.counted = max(self.counted, int(word[4]))
            return b""
        if word[5]:
            what = word[5].decode()
            if what == JOINED:  # whoever was out has been replaced
                self.stepped.clear()
                self.out.clear()
            self.growth.append((what, int(word[6]), word[7].decode(errors="replace")))
            return b""
        if not word[2]:
            (self.stepped if word[3] == b"*" else self.out).add(rank)
            return b""
        self.begun.add(rank)
        (self.left.add if word[2] == b"-" else self.left.discard)(rank)
        return b""
