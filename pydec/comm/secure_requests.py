"""Sends and receives of a sealed transport: what is under way below, and whose it is once opened."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from pydec.comm.transport import Pending
from pydec.crypto.seal import Opener, Unsealed, padded, sealed_bytes
from pydec.errors import FrameError, PeerLost

if TYPE_CHECKING:
    from pydec.comm.secure import SecureTransport

_ASK = -1.0


class Send:
    """A sealed message under way; its buffer goes back once it has left."""

    def __init__(self, owner: SecureTransport, inner: Pending, buffer: memoryview, n_bytes: int) -> None:
        self._owner, self._inner, self.n_bytes = owner, inner, n_bytes
        self._buffer: memoryview | None = buffer
        self.peer = inner.peer

    def done(self) -> bool:
        """See ``Pending.done``."""
        if not self._inner.done():
            return False
        self._let_go()
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending.wait``."""
        self._inner.wait(timeout_s)
        self._let_go()
        return self.n_bytes

    def cancel(self) -> None:
        """See ``Pending.cancel``; the caller's bytes were never in use, and the buffer may still be."""
        self._inner.cancel()

    def _let_go(self) -> None:
        if self._buffer is not None:
            self._owner.sessions.pool.give(self._buffer)
            self._buffer = None


class Channel:
    """The receives that are posted for one peer and tag, and those below, in the order in which both "
    "were posted.

    What arrives belongs to the oldest receive: a message that is refused must not let the next one overtake.
    """

    def __init__(self, owner: SecureTransport, peer: int, tag: int, opener: Opener) -> None:
        self.owner, self.peer, self.tag, self.opener = owner, peer, tag, opener
        self.receives: deque[Receive] = deque()
        self.below: deque[tuple[Pending, memoryview]] = deque()

    def post(self, into: memoryview) -> Receive:
        """One more receive."""
        self._post_below(len(into))
        receive = Receive(self, into)
        self.receives.append(receive)
        return receive

    def _post_below(self, n_bytes: int) -> None:
        sessions = self.owner.sessions
        room = sealed_bytes(padded(n_bytes), pad=True) if sessions.pad else sealed_bytes(n_bytes)
        buffer = sessions.pool.take(room)
        self.below.append((self.owner.inner.irecv(self.peer, self.tag, buffer), buffer))

    def advance(self, wait_s: float | None = _ASK) -> bool:
        """Take the next message that has arrived; whether there was one.

        Args:
            wait_s: how long to wait for it; None is the transport's own deadline; without it, ask once.

        Raises:
            PeerTimeout, PeerLost: as for ``Pending``.
        """
        pending, buffer = self.below[0]
        try:
            if wait_s == _ASK:
                if not pending.done():
                    return False
            else:
                pending.wait(wait_s)
        except FrameError as error:  # the buffer stays with the transport, which may be writing to it
            self._refuse(Unsealed("oversized", str(error)))
            return True
        arrived = pending.n_bytes
        self.owner.bytes_received += arrived
        into = self.receives[0].into
        try:
            n_bytes = self.opener.open_into(self.tag, buffer[:arrived], into)
        except Unsealed as error:
            self.owner.sessions.pool.give(buffer)
            self._refuse(error)
            return True
        except FrameError as error:
            self._next(error=FrameError(f"rank {self.peer} sent {error}"))
            return True
        self.owner.sessions.pool.give(buffer)
        self._next(n_bytes=n_bytes)
        return True

    def _refuse(self, error: Unsealed) -> None:
        """Drop what arrived, and wait for another in its place."""
        self.owner.sessions.refuse(self.peer, self.owner.stream_id, error)
        self.below.popleft()
        self._post_below(max(len(receive.into) for receive in self.receives))

    def _next(self, *, n_bytes: int = 0, error: FrameError | None = None) -> None:
        self.below.popleft()
        self.receives.popleft().settle(n_bytes, error)
        self._forget()

    def withdraw(self, receive: Receive) -> None:
        """Give a receive up."""
        at = self.receives.index(receive)
        pending, buffer = self.below[at]
        del self.receives[at], self.below[at]
        self._forget()
        pending.cancel()
        self.owner.sessions.pool.give(buffer)

    def _forget(self) -> None:
        if not self.receives:
            self.owner.channels.pop((self.peer, self.tag), None)


class Receive:
    """A receive of what a sealed message holds."""

    def __init__(self, channel: Channel, into: memoryview) -> None:
        self.peer = channel.peer
        self.into = into
        self.n_bytes = 0
        self._channel: Channel | None = channel
        self._error: FrameError | None = None

    def settle(self, n_bytes: int, error: FrameError | None) -> None:
        """It is over."""
        self.n_bytes, self._error, self._channel = n_bytes, error, None
        self.into = memoryview(b"")

    def done(self) -> bool:
        """See ``Pending.done``."""
        while self._channel is not None:
            if not self._channel.advance():
                return False
        return self._settled()

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending.wait``."""
        if self._channel is not None:
            owner = self._channel.owner
            until_s = owner.now() + (owner.limit_s(self.peer) if timeout_s is None else timeout_s)
            while self._channel is not None:
                self._channel.advance(timeout_s)
                timeout_s = max(0.0, until_s - owner.now())
        self._settled()
        return self.n_bytes

    def cancel(self) -> None:
        """See ``Pending.cancel``."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.withdraw(self)
            self.into = memoryview(b"")

    def _settled(self) -> bool:
        if self._error is not None:
            raise self._error
        return True


class Shut:
    """An operation with a peer that was not let in."""

    n_bytes = 0

    def __init__(self, error: PeerLost) -> None:
        self.peer, self._error = error.peer, error

    def done(self) -> bool:
        """Never."""
        raise self._error

    def wait(self, timeout_s: float | None = None) -> int:
        """Never."""
        raise self._error

    def cancel(self) -> None:
        """Nothing is under way."""
