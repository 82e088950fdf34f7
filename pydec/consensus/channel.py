"""Messages between nodes, named by their keys: mail between ranks, each of which has proved its key.

What is meant for a node whose rank is not known yet waits, and so does what comes from a rank whose key is
not; both within bounds. Ranks that do not answer are asked again, more and more rarely.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from pydec.comm.mail import Mail
from pydec.comm.transport import Transport
from pydec.consensus.hello import ASK, HELLO, Greeter
from pydec.errors import ProtocolError

_WAITING = 64  # messages kept for, and from, a rank whose key is not known yet
_GREET_S, _GREET_MOST_S = 1.0, 30.0  # between questions to a rank that does not answer: at first, at most
_GREETINGS = (bytes([ASK]), bytes([HELLO]))


class Channel:
    """This node's end; one thread uses it.

    Args:
        link: the stream; nothing else uses it.
        greeter: of this node's identity.
        most_bytes: longest message.
        met: called with every node whose rank becomes known.
        fault: called with a rank and what it did that no honest one does.
    """

    def __init__(
        self,
        link: Transport,
        greeter: Greeter,
        most_bytes: int,
        met: Callable[[bytes], None],
        fault: Callable[[int, str], None],
    ) -> None:
        self._rank, self._greeter = link.rank, greeter
        self._now, self._met, self._fault = link.now, met, fault
        self._mail = Mail(link, most_bytes)
        now_s = link.now()
        self._greet_at_s = {peer: (now_s, _GREET_S) for peer in range(link.size) if peer != link.rank}
        self._outgoing: dict[bytes, deque[bytes]] = {}
        self._incoming: dict[int, deque[bytes]] = {}
        self._ready: deque[tuple[bytes, bytes]] = deque()

    def nodes(self) -> Iterator[bytes]:
        """The nodes whose ranks are known."""
        for peer in range(self._mail.link.size):
            node = self._greeter.node(peer)
            if node is not None:
                yield node

    def rank_of(self, node: bytes) -> int | None:
        """The rank of a node, None if it is not known."""
        return self._greeter.rank_of(node)

    def send(self, node: bytes, data: bytes) -> bool:
        """Put a message on its way; False if it is lost because the node does not take its messages."""
        rank = self._greeter.rank_of(node)
        if rank is None:
            self._outgoing.setdefault(node, deque(maxlen=_WAITING)).append(data)
            return True
        return rank == self._rank or self._mail.send(rank, data)

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next message, as (node, bytes), or None."""
        while not self._ready:
            note = self._mail.receive()
            if note is None:
                return None
            peer, data = note
            if data[:1] in _GREETINGS:
                self._greeted(peer, data)
            elif (node := self._greeter.node(peer)) is not None:
                return node, data
            else:
                self._incoming.setdefault(peer, deque(maxlen=_WAITING)).append(data)
        return self._ready.popleft()

    def greet(self) -> None:
        """Ask the ranks that have not proved their keys, where it is time to."""
        if not self._greet_at_s:
            return
        now_s = self._now()
        for peer, (at_s, pause_s) in self._greet_at_s.items():
            if at_s <= now_s:
                self._greet_at_s[peer] = (now_s + pause_s, min(2.0 * pause_s, _GREET_MOST_S))
                self._mail.send(peer, self._greeter.ask(peer))

    def _greeted(self, peer: int, data: bytes) -> None:
        try:
            answer = self._greeter.receive(peer, data)
        except ProtocolError as error:
            self._fault(peer, str(error))
            return
        if answer is not None:
            self._mail.send(peer, answer)
            return
        node = self._greeter.node(peer)
        if node is None or self._greet_at_s.pop(peer, None) is None:
            return
        self._met(node)
        for waiting in self._outgoing.pop(node, ()):
            self._mail.send(peer, waiting)
        self._ready.extend((node, waiting) for waiting in self._incoming.pop(peer, ()))
