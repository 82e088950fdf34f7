"""Virtual peers that wait for nobody: the exchanges of asynchronous algorithms on virtual links.

``gossip.Asynchronous`` runs as it does on ranks, on a transport whose messages travel by the simulation's
clock and network. Every message that a peer sends or takes is a moment at which its exchange looks round, as
on the local cluster. A message is taken where a receive is posted for it, and its sender hears of that one
latency later.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pydec.comm.transport import Background, Transport
from pydec.gossip.asynchronous import Asynchronous
from pydec.gossip.base import Mixer
from pydec.optim.plan import Plan
from pydec.simulate.rounds import PeerRounds

if TYPE_CHECKING:
    from pydec.simulate.engine import Engine


class _Pending:
    """A send, or a receive into ``into``. See ``comm.transport.Pending``."""

    def __init__(self, peer: int, n_bytes: int, into: memoryview | None = None) -> None:
        self.peer, self.n_bytes, self.into, self.over = peer, n_bytes, into, False

    def done(self) -> bool:
        """Whether its message has been taken."""
        return self.over

    def wait(self, timeout_s: float | None = None) -> int:
        """Not here: the clock stands still while a peer's code runs."""
        raise RuntimeError("a simulated peer cannot wait within its exchange")

    def cancel(self) -> None:
        """Nothing more is done with it."""
        self.over = True


class Mail:
    """Messages that have arrived, and receives that are posted, of all peers.

    Args:
        engine: whose clock and links these are.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.looks: dict[int, Callable[[], None]] = {}
        """What a peer does when one of its messages has moved."""
        self._arrived: dict[tuple[int, int, int], deque[tuple[memoryview, _Pending]]] = defaultdict(deque)
        self._posted: dict[tuple[int, int, int], _Pending] = {}

    def send(self, sender: int, receiver: int, tag: int, data: memoryview) -> _Pending:
        """A message begins to travel; its memory stays as it is until it is taken."""
        send = _Pending(receiver, len(data))
        key = receiver, sender, tag
        self.engine.carry(sender, receiver, len(data), partial(self._arrive, key, data, send))
        return send

    def receive(self, receiver: int, sender: int, tag: int, into: memoryview) -> _Pending:
        """Take the next message, now if it is there."""
        posted = self._posted[receiver, sender, tag] = _Pending(sender, 0, into)
        self._match((receiver, sender, tag))
        return posted

    def _arrive(self, key: tuple[int, int, int], data: memoryview, send: _Pending) -> None:
        self._arrived[key].append((data, send))
        if self._match(key):
            self.looks[key[0]]()

    def _match(self, key: tuple[int, int, int]) -> bool:
        posted = self._posted.get(key)
        if posted is None or not self._arrived[key]:
            return False
        del self._posted[key]
        data, send = self._arrived[key].popleft()
        assert posted.into is not None
        posted.into[: len(data)] = data
        posted.n_bytes, posted.over = len(data), True
        engine = self.engine
        engine.at(engine.now_s + engine.network.link.latency_s, partial(self._taken, key[1], send))
        return True

    def _taken(self, sender: int, send: _Pending) -> None:
        send.over = True
        self.looks[sender]()


class VirtualTransport:
    """What an asynchronous exchange uses of a ``Transport``.

    Args:
        mail: of all peers; None for an exchange that is only looked at.
        rank: of this one.
        size: how many there are.
    """

    deadline_s = math.inf

    def __init__(self, mail: Mail | None, rank: int, size: int) -> None:
        self.mail, self.rank, self.size = mail, rank, size
        self.tick: Callable[[], bool] = lambda: False

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> _Pending:
        """See ``Transport.isend``; all sends are matched."""
        assert self.mail is not None
        return self.mail.send(self.rank, peer, tag, data)

    def irecv(self, peer: int, tag: int, into: memoryview) -> _Pending:
        """See ``Transport.irecv``."""
        assert self.mail is not None
        return self.mail.receive(self.rank, peer, tag, into)

    def now(self) -> float:
        """Virtual seconds."""
        assert self.mail is not None
        return self.mail.engine.now_s

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background:
        """See ``Transport.background``."""
        self.tick = tick
        return self

    def kick(self) -> None:
        """See ``Background.kick``."""
        while self.tick():
            pass

    def close(self) -> None:
        """See ``Background.close``."""
        self.tick = lambda: False

    def attend(self, peer: int) -> None:
        """Nobody dies."""


class FreePeer(PeerRounds):
    """An asynchronous exchange in the place of rounds; ``missing`` is empty but at the end.

    Args:
        exchange: of the peer.
        transport: that it is on.
    """

    def __init__(self, exchange: Asynchronous, transport: VirtualTransport) -> None:
        self.exchange, self.transport = exchange, transport
        self.round = 0
        self.missing: set[int] = set()

    @property
    def pending(self) -> bool:  # type: ignore[override]
        """Whether the models are published, and not mixed yet."""
        return self.exchange.pending

    def finish(self) -> None:
        """Mix what has arrived by now."""
        self.exchange.finish()

    def ending(self) -> Iterator[None]:
        """Answer the others until all have ended."""
        for _ in self.exchange.ending():
            self.missing = {*self.exchange.weights}
            yield
        self.missing = set()


def connect(mail: Mail | None, plan: Plan, rank: int, mixers: list[Mixer], seed: int) -> FreePeer:
    """The exchange of a peer's mixers.

    Args:
        mail: of all peers; None for an exchange that is only looked at.
        plan: with an asynchronous algorithm.
        rank: of the peer.
        mixers: one per vector.
        seed: as of ``PeerRounds``.
    """
    transport = VirtualTransport(mail, rank, plan.topology.size)
    link = cast(Transport, cast(Any, transport))
    return FreePeer(plan.algorithm.connect(link, plan.topology, mixers, epoch=0, seed=seed), transport)
