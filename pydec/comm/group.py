"""Some ranks of a cluster, numbered from 0, as a cluster of their own for one attempt at something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pydec.comm.backoff import Limit
from pydec.comm.transport import Background, Pending, Stream, Transport, Watcher
from pydec.errors import PeerLost, PeerTimeout

_LOOK_S = 0.02  # how often a wait looks for members that have died


class Group:
    """A ``Transport`` of the members, on one stream; ranks are places among them.

    With a ``tag`` every message of the group carries it, whatever tag is asked for: members must
    receive from each other in the order in which they send, as ``comm.collect`` does. Waits then end with
    PeerLost as soon as any member is known to be dead, not only the one that is waited for. What an
    exception leaves under way is kept until the transport has finished with it; nobody uses its memory again.

    Args:
        link: the stream.
        members: their ranks, in increasing order, this one among them.
        tag: of all messages; None keeps those that are asked for, and leaves waits alone.

    Attributes:
        members: their ranks.
    """

    tolerant = False
    takes_gpu_memory = False

    def __init__(self, link: Transport, members: tuple[int, ...], *, tag: int | None = None) -> None:
        self.link = link
        self.members = members
        self.rank = members.index(link.rank)
        self.size = len(members)
        self.deadline_s = link.deadline_s
        self.bytes_sent = self.bytes_received = 0
        self.sent_to: Counter[int] = Counter()
        self._tag = tag

    def check(self) -> None:
        """Raise PeerLost if a member is known to be dead."""
        dead = self.lost()
        if dead:
            raise PeerLost(min(dead), "is dead, and what was under way begins again without it")

    def lost(self) -> frozenset[int]:
        """Members that are known to be dead, by their ranks in the cluster."""
        return self.link.lost() & frozenset(self.members)

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """See ``Transport.isend``."""
        pending = self.link.isend(self.members[peer], self._tagged(tag), data, matched=matched)
        return pending if self._tag is None else _Watched(self, pending)

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """See ``Transport.irecv``."""
        pending = self.link.irecv(self.members[peer], self._tagged(tag), into)
        return pending if self._tag is None else _Watched(self, pending)

    def _tagged(self, tag: int) -> int:
        return tag if self._tag is None else self._tag

    def stream(self, stream: Stream) -> Transport:
        """The group has one stream."""
        return self

    def post(self, peer: int, data: bytes) -> None:
        """Not offered: posted messages have no tag that could tell attempts apart."""
        raise NotImplementedError("a group has no posted messages; use isend and irecv")

    def poll(self) -> tuple[int, bytes] | None:
        """Nothing is ever posted."""
        return None

    def expel(self, peer: int) -> None:
        """See ``Transport.expel``."""
        self.link.expel(self.members[peer])

    def watch(self, watcher: Watcher | None) -> None:
        """Not offered: whoever watches, watches the whole cluster."""
        raise NotImplementedError("a group has no watcher of its own; watch the transport")

    def attend(self, peer: int) -> None:
        """See ``Transport.attend``."""
        self.link.attend(self.members[peer])

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Transport.limit_s``."""
        return self.link.limit_s(self.members[peer], late=late)

    def advance(self) -> None:
        """See ``Transport.advance``."""
        self.link.advance()

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background | None:
        """See ``Transport.background``."""
        return self.link.background(tick, most_s=most_s)

    def set_interrupt(self, interrupt: Callable[[], None] | None) -> None:
        """See ``Transport.set_interrupt``."""
        self.link.set_interrupt(interrupt)

    def now(self) -> float:
        """See ``Transport.now``."""
        return self.link.now()

    def close(self) -> None:
        """The stream belongs to somebody else."""


class _Watched:
    """A ``Pending`` whose wait ends when any member of the group is dead."""

    def __init__(self, group: Group, pending: Pending) -> None:
        self._group = group
        self._pending = pending
        self.peer = pending.peer

    @property
    def n_bytes(self) -> int:
        """See ``Pending.n_bytes``."""
        return self._pending.n_bytes

    def done(self) -> bool:
        """See ``Pending.done``."""
        if self._pending.done():
            return True
        self._group.check()
        return False

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending.wait``."""
        limit_s = self._group.link.limit_s(self.peer) if timeout_s is None else timeout_s
        limit = Limit(self._group.now(), limit_s)
        while True:
            try:
                return self._pending.wait(max(0.0, min(_LOOK_S, limit.until_s - self._group.now())))
            except PeerTimeout as error:
                self._group.check()
                if limit.passed(self._group.now()):
                    what = str(error).partition(": ")[2]
                    raise PeerTimeout(self.peer, f"let {limit_s:g} s pass: {what}") from None

    def cancel(self) -> None:
        """See ``Pending.cancel``."""
        self._pending.cancel()
