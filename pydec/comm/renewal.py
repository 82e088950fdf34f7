"""New handshakes while a run goes on: keys that do not follow from the ones before.

A ratchet by hashing keeps yesterday's messages from who steals today's key, but lets him read on. So pairs
shake hands anew, every hour and after ten generations of a key: fresh X25519 keys, signed again, by posted
messages of the CONTROL stream, whose polls move it. Nothing waits for it: messages go on under the old keys,
and a handshake that fails is tried again later.

The lower rank begins, with one peer after the other. Both take messages under the new keys before either
sends any: the higher rank does once it has sent the fourth message, and sends with them when a fifth says
that the lower one takes them, too. Every stream goes over with its next message; one that rests keeps its old
key until then.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from pydec.comm.identity import Identity
from pydec.comm.sessions import Sessions
from pydec.comm.transport import Stream
from pydec.crypto.handshake import Initiator, Pair, Responder, Secrets
from pydec.crypto.seal import Unsealed
from pydec.errors import FrameError, PeerLost, PeerTimeout, ProtocolError

_HEAD = struct.Struct("<IB")  # number of the session, which message
_LOOK_S = 1.0
_PATIENCE_S = 60.0  # that a peer may take to answer: one that computes polls rarely
_HELLO, _ANSWER, _FINISH, _CONFIRM, _DONE = range(5)


@dataclass
class _Talk:
    """A handshake under way."""

    number: int
    side: Initiator | Responder
    since_s: float
    made: Secrets | None = None


class Renewal:
    """One rank's part in the renewal of its keys; the thread that polls the CONTROL stream uses it.

    Args:
        sessions: of this rank.
        identity: who this rank is; certifies a new run key for each handshake.
        post: sends a message of a handshake to a peer.
        now: seconds, on the transport's clock.
    """

    def __init__(
        self,
        sessions: Sessions,
        identity: Identity,
        post: Callable[[int, bytes], None],
        now: Callable[[], float],
    ) -> None:
        self._sessions, self._identity, self._post, self._now = sessions, identity, post, now
        self._since_s = dict.fromkeys(sessions.identities, now())  # of each pair's last try
        self._look_s = now()
        self._mine: tuple[int, _Talk] | None = None  # that this rank has begun
        self._theirs: dict[int, _Talk] = {}

    def turn(self) -> None:
        """Begin a handshake if one is due; cheap, and called often."""
        now_s = self._now()
        if now_s < self._look_s:
            return
        self._look_s = now_s + min(_LOOK_S, self._sessions.limits.fresh_s / 4)
        if self._mine is not None and now_s - self._mine[1].since_s < _PATIENCE_S:
            return
        self._mine = None
        for peer in sorted(self._since_s):
            if peer > self._sessions.rank and self._due(peer, now_s):
                self._begin(peer, now_s)
                return

    def hear(self, peer: int, message: bytes) -> None:
        """Go on with the handshake that a peer's message is of; one that is not content is counted."""
        try:
            number, kind = _HEAD.unpack_from(message)
            self._answer(peer, number, kind, message[_HEAD.size :])
        except (struct.error, ProtocolError, FrameError) as error:
            self._theirs.pop(peer, None)
            if self._mine is not None and self._mine[0] == peer:
                self._mine = None
            self._sessions.refuse(peer, Stream.CONTROL, Unsealed("handshake", str(error)))

    def _due(self, peer: int, now_s: float) -> bool:
        limits = self._sessions.limits
        old = now_s - self._since_s[peer] >= limits.fresh_s
        return old or self._sessions.ratchets(peer) >= limits.generations

    def _begin(self, peer: int, now_s: float) -> None:
        self._since_s[peer] = now_s
        number = self._sessions.number(peer) + 1
        side = Initiator(self._pair(peer, number), self._identity.credentials())
        self._mine = peer, _Talk(number, side, now_s)
        self._say(peer, number, _HELLO, side.hello())

    def _pair(self, peer: int, number: int) -> Pair:
        rank = self._sessions.rank
        return Pair(self._sessions.size, number, min(rank, peer), max(rank, peer))

    def _answer(self, peer: int, number: int, kind: int, message: bytes) -> None:
        if kind == _HELLO and peer < self._sessions.rank:
            if number < self._sessions.number(peer):  # the same: the peer never heard the end of that one
                raise FrameError(f"handshake {number} after {self._sessions.number(peer)}")
            side = Responder(self._pair(peer, number), self._identity.credentials())
            self._theirs[peer] = _Talk(number, side, self._now())
            self._say(peer, number, _ANSWER, side.answer(message))
            return
        mine = self._mine is not None and self._mine[0] == peer
        talk = self._mine[1] if self._mine is not None and mine else self._theirs.get(peer)
        if talk is None or talk.number != number:
            return  # of a handshake that was given up
        if mine and isinstance(talk.side, Initiator):
            if kind == _ANSWER:
                self._say(peer, number, _FINISH, talk.side.finish(message))
            elif kind == _CONFIRM:
                made = self._same(peer, talk.side.confirmed(message))
                self._sessions.renew_receiving(peer, made, number)
                self._sessions.renew_sending(peer, made, number)
                self._mine, self._look_s = None, self._now()  # the next pair's turn
                self._say(peer, number, _DONE, b"")
        elif isinstance(talk.side, Responder):
            if kind == _FINISH:
                confirm, made = talk.side.accept(message)
                talk.made = self._same(peer, made)
                self._sessions.renew_receiving(peer, talk.made, number)
                self._say(peer, number, _CONFIRM, confirm)
            elif kind == _DONE and talk.made is not None:
                del self._theirs[peer]
                self._sessions.renew_sending(peer, talk.made, number)

    def _same(self, peer: int, made: Secrets) -> Secrets:
        """What a handshake came to, if it was with the peer that this rank knows."""
        sessions = self._sessions
        if (made.identity, made.suite) != (sessions.identities[peer], sessions.suites[peer]):
            raise ProtocolError(peer, f"shook hands anew as {made.identity.hex()[:16]}, {made.suite.words}")
        return made

    def _say(self, peer: int, number: int, kind: int, message: bytes) -> None:
        with suppress(PeerTimeout, PeerLost):  # who takes nothing is tried again later
            self._post(peer, _HEAD.pack(number, kind) + message)
