"""A transport that seals what it sends and opens what it receives, over any other one.

Everything above sees the same ``Transport``. Every message of every stream is sealed by the keys of its pair,
stream and direction (``crypto.seal``), which ``comm.meet`` agrees on at the start. The payload is passed
over once on each side: from the sender's memory into the buffer that is sent, from the buffer
that arrived into the receiver's memory. It happens in the thread that sends, or asks whether something has
arrived, and without the interpreter's lock; with ``background`` that thread is the transport's.

A message that is not what the peer sealed for this place is dropped, counted and logged, and the receive goes
on as if it had not come; one that is too long for its receive is too, because nobody knows who sent it. A
peer that was not let in counts as lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydec.comm.buffers import POST_LIMIT, check_peer, check_tag, flat
from pydec.comm.outer import Outer
from pydec.comm.secure_requests import Channel, Send, Shut
from pydec.comm.sessions import Sessions
from pydec.comm.transport import Pending, Stream, Transport, Watcher
from pydec.crypto.seal import HANDSHAKE, POSTED, Unsealed, tag_of
from pydec.crypto.suites import Suite
from pydec.errors import ConfigError, PeerLost

if TYPE_CHECKING:
    from pydec.comm.renewal import Renewal


class SecureTransport(Outer):
    """One stream of a cluster whose messages are sealed; see ``Transport``. Made by ``comm.meet``.

    Args:
        inner: the transport below, of the same stream.
        sessions: of this rank.
        stream: of ``inner``.
    """

    def __init__(self, inner: Transport, sessions: Sessions, stream: Stream = Stream.GOSSIP) -> None:
        self.inner = inner
        self.sessions = sessions
        self.rank, self.size = inner.rank, inner.size
        self.bytes_sent = self.bytes_received = 0
        self.sent_to: Counter[int] = Counter()
        self.stream_id = stream
        self._streams: dict[Stream, SecureTransport] = {stream: self}
        self.channels: dict[tuple[int, int], Channel] = {}
        self.renewal: Renewal | None = None  # of the CONTROL stream

    @property
    def takes_gpu_memory(self) -> bool:
        """See ``Transport.takes_gpu_memory``: messages are sealed in host memory."""
        return False

    @property
    def identities(self) -> Mapping[int, bytes]:
        """Public key by rank of the others, each proved when this transport was made."""
        return self.sessions.identities

    @property
    def words(self) -> str:
        """What protects the messages, in one line."""
        suites = {suite.words for suite in self.sessions.suites.values()} or {Suite.AES_256_GCM.words}
        return f"sealed with {' and '.join(sorted(suites))}; {self.sessions.words}"

    def summary(self) -> dict[str, Any]:
        """For ``summary.json``: how messages were sealed, and how many were refused, by peer and kind."""
        return {
            "suites": sorted({suite.words for suite in self.sessions.suites.values()}),
            "trust": self.sessions.words,
            "padded": self.sessions.pad,
            "renewed": sum(self.sessions.renewed.values()),
            "not_let_in": {str(peer): why for peer, why in sorted(self.sessions.shut.items())},
            "refused": {f"{peer} {kind}": n for (peer, kind), n in sorted(self.sessions.refused.items())},
        }

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """See ``Transport.isend``. The bytes may change as soon as this returns: they are sealed by then."""
        check_peer(peer, self.size)
        check_tag(tag)
        if peer == self.rank:
            return self.inner.isend(peer, tag, data, matched=matched)
        view = flat(data, writable=False)
        try:
            sealer, _ = self.sessions.ends(peer, self.stream_id)
        except PeerLost as error:
            return Shut(error)
        buffer = self.sessions.pool.take(sealer.size(len(view)))
        sealer.seal_into(tag, view, buffer)
        self.bytes_sent += len(buffer)
        self.sent_to[peer] += len(buffer)
        return Send(self, self.inner.isend(peer, tag, buffer, matched=matched), buffer, len(view))

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """See ``Transport.irecv``."""
        check_peer(peer, self.size)
        check_tag(tag)
        if peer == self.rank:
            return self.inner.irecv(peer, tag, into)
        view = flat(into, writable=True)
        try:
            _, opener = self.sessions.ends(peer, self.stream_id)
        except PeerLost as error:
            return Shut(error)
        channel = self.channels.get((peer, tag))
        if channel is None:
            channel = self.channels[peer, tag] = Channel(self, peer, tag, opener)
        return channel.post(view)

    def stream(self, stream: Stream) -> SecureTransport:
        """See ``Transport.stream``."""
        if stream not in self._streams:
            other = SecureTransport(self.inner.stream(stream), self.sessions, stream)
            other._streams = self._streams
            self._streams[stream] = other
        return self._streams[stream]

    def post(self, peer: int, data: bytes) -> None:
        """See ``Transport.post``; dropped if the peer was not let in."""
        check_peer(peer, self.size)
        if len(data) > POST_LIMIT:
            raise ConfigError(
                f"a posted message holds at most {POST_LIMIT} bytes where it is sealed, got {len(data)}; use "
                "isend and irecv"
            )
        if peer == self.rank:
            return self.inner.post(peer, data)
        if peer in self.sessions.shut:
            return None
        return self._post(peer, POSTED, data)

    def post_handshake(self, peer: int, data: bytes) -> None:
        """Post a message that renews keys; see ``Renewal``."""
        if peer not in self.sessions.shut:
            self._post(peer, HANDSHAKE, data)

    def _post(self, peer: int, tag: int, data: bytes) -> None:
        sealer, _ = self.sessions.ends(peer, self.stream_id)
        sealed = bytearray(sealer.size(len(data)))
        sealer.seal_into(tag, memoryview(data), memoryview(sealed))
        self.bytes_sent += len(sealed)
        self.sent_to[peer] += len(sealed)
        self.inner.post(peer, bytes(sealed))

    def poll(self) -> tuple[int, bytes] | None:
        """See ``Transport.poll``."""
        if self.renewal is not None:
            self.renewal.turn()
        while (note := self.inner.poll()) is not None:
            peer, sealed = note
            if peer == self.rank:
                return note
            self.bytes_received += len(sealed)
            try:
                _, opener = self.sessions.ends(peer, self.stream_id)
                data = bytearray(len(sealed))
                renews = self.renewal is not None and tag_of(sealed) == HANDSHAKE
                n_bytes = opener.open_into(
                    HANDSHAKE if renews else POSTED, memoryview(sealed), memoryview(data)
                )
                if self.renewal is None or not renews:
                    return peer, bytes(data[:n_bytes])
                self.renewal.hear(peer, bytes(data[:n_bytes]))
            except Unsealed as error:
                self.sessions.refuse(peer, self.stream_id, error)
            except PeerLost:
                self.sessions.refuse(peer, self.stream_id, Unsealed("stranger", "its sender was not let in"))
        return None

    def lost(self) -> frozenset[int]:
        """See ``Transport.lost``; with those that were not let in."""
        return self.inner.lost() | self.sessions.shut.keys()

    def expel(self, peer: int) -> None:
        """See ``Transport.expel``."""
        self.inner.expel(peer)

    def watch(self, watcher: Watcher | None) -> None:
        """See ``Transport.watch``."""
        self.inner.watch(watcher)

    def attend(self, peer: int) -> None:
        """See ``Transport.attend``."""
        self.inner.attend(peer)

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Transport.limit_s``."""
        return self.inner.limit_s(peer, late=late)

    def close(self) -> None:
        """See ``Transport.close``; the keys are gone afterwards."""
        self.inner.close()
        self.sessions.close()
