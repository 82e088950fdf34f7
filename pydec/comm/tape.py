"""A transport that plays back what one rank received in a round, and keeps what it sends.

A program that ran over another transport runs here once more, alone, for a rank that may be another one:
what is not on the tape never comes, and whoever waits for it is told so at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from pydec.comm.buffers import check_peer, check_tag, flat
from pydec.comm.transport import Background, Pending, Stream, Transport, Watcher
from pydec.errors import FrameError, PeerTimeout


class _Done:
    """An operation that was over when it began."""

    def __init__(self, peer: int, n_bytes: int) -> None:
        self.peer, self.n_bytes = peer, n_bytes

    def done(self) -> bool:
        """See ``Pending``."""
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending``."""
        return self.n_bytes

    def cancel(self) -> None:
        """See ``Pending``."""


class _Never(_Done):
    """A receive of what is not on the tape."""

    def done(self) -> bool:
        """See ``Pending``."""
        return False

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending``.

        Raises:
            PeerTimeout: always.
        """
        raise PeerTimeout(self.peer, "is not on the tape")


class TapeTransport:
    """One rank's end of a cluster that is not there; see ``Transport``. All streams are one.

    Args:
        rank, size: of the rank that is played.
        tape: messages that it received, by sender and tag.

    Attributes:
        sent: messages that it has sent, by receiver and tag.
    """

    tolerant = False
    takes_gpu_memory = False
    deadline_s = 0.0

    def __init__(self, rank: int, size: int, tape: Mapping[tuple[int, int], bytes]) -> None:
        self.rank, self.size = rank, size
        self.bytes_sent = self.bytes_received = 0
        self.sent: dict[tuple[int, int], bytes] = {}
        self.sent_to: Counter[int] = Counter()
        self._tape = tape

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """See ``Transport.isend``."""
        check_peer(peer, self.size)
        check_tag(tag)
        content = self.sent[peer, tag] = bytes(flat(data, writable=False))
        self.bytes_sent += len(content)
        self.sent_to[peer] += len(content)
        return _Done(peer, len(content))

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """See ``Transport.irecv``.

        Raises:
            FrameError: the message on the tape is longer.
        """
        check_peer(peer, self.size)
        check_tag(tag)
        found, room = self._tape.get((peer, tag)), flat(into, writable=True)
        if found is None:
            return _Never(peer, 0)
        if len(found) > len(room):
            raise FrameError(f"a message of {len(found)} bytes does not fit in {len(room)}")
        room[: len(found)] = found
        self.bytes_received += len(found)
        return _Done(peer, len(found))

    def stream(self, stream: Stream) -> Transport:
        """See ``Transport.stream``."""
        return self

    def post(self, peer: int, data: bytes) -> None:
        """See ``Transport.post``; nobody is there to take it."""

    def poll(self) -> tuple[int, bytes] | None:
        """See ``Transport.poll``."""
        return None

    def lost(self) -> frozenset[int]:
        """See ``Transport.lost``."""
        return frozenset()

    def expel(self, peer: int) -> None:
        """See ``Transport.expel``."""

    def watch(self, watcher: Watcher | None) -> None:
        """See ``Transport.watch``."""

    def attend(self, peer: int) -> None:
        """See ``Transport.attend``."""

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Transport.limit_s``."""
        return 0.0

    def advance(self) -> None:
        """See ``Transport.advance``."""

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background | None:
        """See ``Transport.background``."""
        return None

    def set_interrupt(self, interrupt: Callable[[], None] | None) -> None:
        """See ``Transport.set_interrupt``."""

    def now(self) -> float:
        """See ``Transport.now``; time stands still."""
        return 0.0

    def close(self) -> None:
        """See ``Transport.close``."""
