"""Some ranks of a cluster as one of their own: the others are sent nothing, and nothing of them is taken.

For ranks of a job that may not take part in its work, see ``train.admission``. Ranks are numbered anew, from
0; the errors of the transport below name ranks by these numbers, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydec.comm.buffers import check_peer
from pydec.comm.outer import Outer
from pydec.comm.transport import Pending, Stream, Transport, Watcher
from pydec.errors import PeerError


class Team(Outer):
    """One stream of the ranks ``members`` of a cluster; see ``Transport``.

    Args:
        inner: the transport below, any stream of it.
        members: their ranks there, in increasing order, this one among them.

    Attributes:
        members: the same.
        dropped: posted messages of others that were thrown away, on this stream.
    """

    def __init__(self, inner: Transport, members: tuple[int, ...]) -> None:
        self.inner, self.members = inner, members
        self.rank, self.size = members.index(inner.rank), len(members)
        self.dropped = 0
        self._places = {member: place for place, member in enumerate(members)}
        self._same = members == tuple(range(len(members)))
        self._streams: dict[Stream, Team] = {}

    @property
    def bytes_sent(self) -> int:
        """See ``Transport``."""
        return self.inner.bytes_sent

    @bytes_sent.setter
    def bytes_sent(self, count: int) -> None:
        self.inner.bytes_sent = count

    @property
    def bytes_received(self) -> int:
        """See ``Transport``."""
        return self.inner.bytes_received

    @bytes_received.setter
    def bytes_received(self, count: int) -> None:
        self.inner.bytes_received = count

    @property
    def sent_to(self) -> Counter[int]:
        """See ``Transport.sent_to``."""
        sent = self.inner.sent_to
        return sent if self._same else Counter({place: sent[rank] for rank, place in self._places.items()})

    @property
    def takes_gpu_memory(self) -> bool:
        """See ``Transport.takes_gpu_memory``."""
        return self.inner.takes_gpu_memory

    @property
    def identities(self) -> dict[int, bytes]:
        """Public key by number of the other members, where messages are sealed; see ``SecureTransport``."""
        known = getattr(self.inner, "identities", {})
        return {self._places[rank]: key for rank, key in known.items() if rank in self._places}

    def place(self, rank: int) -> int | None:
        """The number here of a rank of the cluster, None if it is no member."""
        return self._places.get(rank)

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """See ``Transport.isend``."""
        check_peer(peer, self.size)
        with self._renamed():
            return self._of(self.inner.isend(self.members[peer], tag, data, matched=matched), peer)

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """See ``Transport.irecv``."""
        check_peer(peer, self.size)
        with self._renamed():
            return self._of(self.inner.irecv(self.members[peer], tag, into), peer)

    def _of(self, pending: Pending, peer: int) -> Pending:
        return pending if self._same else _Renamed(pending, peer, self._renamed)

    @contextmanager
    def _renamed(self) -> Iterator[None]:
        """Within, errors that name a rank of the cluster name it by its number here."""
        try:
            yield
        except PeerError as error:
            place = self._places.get(error.peer)
            if self._same or place is None:
                raise
            raise type(error)(place, str(error).removeprefix(f"rank {error.peer} ")) from error

    def stream(self, stream: Stream) -> Team:
        """See ``Transport.stream``."""
        if stream not in self._streams:
            other = Team(self.inner.stream(stream), self.members)
            other._streams = self._streams
            self._streams[stream] = other
        return self._streams[stream]

    def post(self, peer: int, data: bytes) -> None:
        """See ``Transport.post``."""
        check_peer(peer, self.size)
        with self._renamed():
            self.inner.post(self.members[peer], data)

    def poll(self) -> tuple[int, bytes] | None:
        """See ``Transport.poll``; what others have posted is thrown away."""
        while (note := self.inner.poll()) is not None:
            place = self._places.get(note[0])
            if place is not None:
                return place, note[1]
            self.dropped += 1
        return None

    def lost(self) -> frozenset[int]:
        """See ``Transport.lost``."""
        lost = self.inner.lost()
        return frozenset(self._places[rank] for rank in lost if rank in self._places) if lost else lost

    def expel(self, peer: int) -> None:
        """See ``Transport.expel``."""
        self.inner.expel(self.members[peer])

    def watch(self, watcher: Watcher | None) -> None:
        """See ``Transport.watch``; the watcher hears of members only."""
        self.inner.watch(None if watcher is None else _Watching(watcher, self))

    def attend(self, peer: int) -> None:
        """See ``Transport.attend``."""
        self.inner.attend(self.members[peer])

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Transport.limit_s``."""
        return self.inner.limit_s(self.members[peer], late=late)

    def close(self) -> None:
        """See ``Transport.close``."""
        self.inner.close()


class _Renamed:
    """A ``Pending`` whose peer has another number."""

    def __init__(self, pending: Pending, peer: int, renamed: Callable[[], Any]) -> None:
        self._pending, self._renamed = pending, renamed
        self.peer = peer

    @property
    def n_bytes(self) -> int:
        """See ``Pending.n_bytes``."""
        return self._pending.n_bytes

    def done(self) -> bool:
        """See ``Pending.done``."""
        with self._renamed():
            return self._pending.done()

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending.wait``."""
        with self._renamed():
            return self._pending.wait(timeout_s)

    def cancel(self) -> None:
        """See ``Pending.cancel``."""
        with self._renamed():
            self._pending.cancel()


class _Watching:
    """Tells a watcher of a team what happens to its members."""

    def __init__(self, watcher: Watcher, team: Team) -> None:
        self._watcher, self._team = watcher, team

    def enters(self, peer: int) -> None:
        """See ``Watcher.enters``."""
        self._tell(self._watcher.enters, peer)

    def waits(self, peer: int) -> None:
        """See ``Watcher.waits``."""
        self._tell(self._watcher.waits, peer)

    def heard(self, peer: int) -> None:
        """See ``Watcher.heard``."""
        self._tell(self._watcher.heard, peer)

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Watcher.limit_s``."""
        place = self._team.place(peer)
        return self._team.deadline_s if place is None else self._watcher.limit_s(place, late=late)

    def _tell(self, what: Callable[[int], None], peer: int) -> None:
        place = self._team.place(peer)
        if place is not None:
            what(place)


def place_of(transport: Transport, rank: int) -> int | None:
    """The number that a rank of the job has on a transport; None if it is no member of that team."""
    return transport.place(rank) if isinstance(transport, Team) else rank


def rank_of(transport: Transport, place: int) -> int:
    """The rank in the job of a number on a transport."""
    return transport.members[place] if isinstance(transport, Team) else place
