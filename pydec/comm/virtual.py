"""The network between the ranks of a local cluster: messages, their faults, and waiting for them."""

from __future__ import annotations

import math
import random
import zlib
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, TypeVar

from pydec.comm.backoff import Limit
from pydec.comm.baton import Baton
from pydec.comm.faults import EAGER_BYTES, Death, Faults, Killed, Pause
from pydec.comm.transport import Stream, Watcher
from pydec.errors import FrameError, PeerLost, PeerTimeout, PydecError

POLL_S = (50e-6, 1e-3)  # what an unsuccessful poll costs on the virtual clock: at first, at most
LOOK_S = 0.05  # how often a watched wait looks round
POST = -1  # stands for the tag of posted messages

T = TypeVar("T")
Key = tuple[int, Stream, int, int]  # receiver, stream, sender, tag


def take_first(queues: dict[Key, deque[T]], key: Key) -> T | None:
    """Take the oldest entry of one queue, if there is one; no empty queue stays behind."""
    queue = queues.get(key)
    if queue is None:
        return None
    first = queue.popleft()
    if not queue:
        del queues[key]
    return first


@dataclass(frozen=True)
class TraceEvent:
    """One event of a traced run.

    ``kind`` is send, deliver, lose or double; ``tag`` is -1 for posted messages; ``crc32`` covers
    the bytes of the message.
    """

    time_s: float
    kind: str
    sender: int
    receiver: int
    stream: Stream
    tag: int
    n_bytes: int
    crc32: int


@dataclass(eq=False)
class Endpoint:
    """One rank's end of the network on one stream, as far as operations need it."""

    net: Network
    rank: int
    stream_id: Stream
    deadline_s: float
    bytes_sent: int = 0
    bytes_received: int = 0
    sent_to: Counter[int] = field(default_factory=Counter)
    _poll_s: float = POLL_S[0]

    @property
    def watcher(self) -> Watcher | None:
        """Who watches the waits of this rank."""
        return self.net.watchers.get(self.rank)

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Transport.limit_s``."""
        return self.deadline_s if self.watcher is None else self.watcher.limit_s(peer, late=late)

    def interrupt(self) -> None:
        """Run the rank's interrupt function, if it has one; polls in there cost no time."""
        if self.rank in self.net.interrupts and self.rank not in self.net.interrupting:
            with self.net.undisturbed(self.rank):
                self.net.interrupts[self.rank]()

    def pause(self, what: Callable[[], str]) -> None:
        """What an unsuccessful poll costs: others run, and time passes, more of it each time."""
        self.net.check_alive(self.rank)
        if self.rank in self.net.interrupting:
            return
        until_s = self.net.baton.time_s + self._poll_s
        self.net.park(self.rank, until_s, what)
        waited = self.net.baton.time_s >= until_s
        self._poll_s = min(2 * self._poll_s, POLL_S[1]) if waited else POLL_S[0]


@dataclass(eq=False)
class Operation:
    """A send or receive under way; only the rank that owns it waits on it."""

    receives: ClassVar[bool] = False
    owner: Endpoint
    peer: int
    what: str
    view: memoryview
    complete: bool = False
    n_bytes: int = 0
    error: PydecError | None = None

    def done(self) -> bool:
        """See ``Pending.done``."""
        if not self._settled():
            self.owner.pause(lambda: self.what)
        settled = self._settled()
        if settled and self.receives:
            self._told()
        return settled

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending.wait``."""
        baton = self.owner.net.baton
        limit_s = self.owner.limit_s(self.peer) if timeout_s is None else timeout_s
        # A wait of no time is a poll and costs as much.
        limit = Limit(baton.time_s, max(limit_s, POLL_S[0]))
        self.owner.interrupt()
        watcher, waited = self.owner.watcher, False
        if watcher is not None:
            watcher.enters(self.peer)
        while not self._settled():
            if baton.time_s >= limit.until_s if watcher is None else limit.passed(baton.time_s):
                note = self.owner.net.idle_note()
                raise PeerTimeout(self.peer, f"let {limit_s:g} s pass: no {self.what}{note}")
            look_s = limit.until_s if watcher is None else min(limit.until_s, baton.time_s + LOOK_S)
            self.owner.net.park(self.owner.rank, look_s, lambda: self.what)
            self.owner.interrupt()
            if watcher is not None:
                watcher.waits(self.peer)
                waited = True
        if waited or self.receives:
            self._told()
        return self.n_bytes

    def cancel(self) -> None:
        """See ``Pending.cancel``."""
        if not self.complete:
            self.complete = True
            self.view = memoryview(b"")
            self._withdraw()

    def _settled(self) -> bool:
        if self.error is not None:
            raise self.error
        known = self.owner.net.known[self.owner.rank]
        if not self.complete and self.peer in known:
            raise PeerLost(self.peer, f"is gone ({known[self.peer]}): no {self.what}")
        return self.complete

    def _told(self) -> None:
        """The peer has sent or taken this: whoever watches knows."""
        if self.owner.watcher is not None:
            self.owner.watcher.heard(self.peer)

    def _withdraw(self) -> None:
        """A send stays in flight after it was cancelled."""


@dataclass(eq=False)
class Receive(Operation):
    """A posted receive."""

    receives: ClassVar[bool] = True
    key: Key = (0, Stream.GOSSIP, 0, 0)

    def take(self, message: Message) -> None:
        """Complete with ``message``, which may be too long."""
        self.complete = True
        if len(message.data) > len(self.view):
            fits = f"where at most {len(self.view)} fit ({self.what})"
            self.error = FrameError(f"rank {self.peer} sent {len(message.data)} bytes {fits}")
        else:
            self.n_bytes = len(message.data)
            self.view[: self.n_bytes] = message.data
            self.owner.bytes_received += self.n_bytes
        message.taken()
        self.owner.net.stir(self.owner.rank)

    def _withdraw(self) -> None:
        posted = self.owner.net.posted
        posted[self.key].remove(self)
        if not posted[self.key]:
            del posted[self.key]


@dataclass(eq=False)
class Message:
    """One copy of a message, in flight or waiting for its receive."""

    data: bytes
    send: Operation | None  # None once nobody waits for this copy to arrive

    def taken(self) -> None:
        """Complete the send, if somebody still waits for it."""
        send, self.send = self.send, None
        if send is not None and not send.complete:
            if bytes(send.view) != self.data:
                send.error = PydecError(f"a send buffer changed before its send was done ({send.what})")
            send.complete = True
            send.owner.net.stir(send.owner.rank)


@dataclass(eq=False)
class Network:
    """Everything that the ranks of one run share; only the holder of the baton touches it."""

    size: int
    seed: int
    faults: Faults
    deadline_s: float
    trace: list[TraceEvent] | None
    real_clock: bool = False
    deaths: Mapping[int, Death] | None = None
    pauses: Mapping[int, Pause] | None = None
    baton: Baton = field(init=False)
    arrived: defaultdict[Key, deque[Message]] = field(default_factory=lambda: defaultdict(deque))
    posted: defaultdict[Key, deque[Receive]] = field(default_factory=lambda: defaultdict(deque))
    inbox: defaultdict[tuple[int, Stream], deque[tuple[int, bytes]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    known: list[dict[int, str]] = field(init=False)  # by rank: who it knows to be gone, and why
    killed: set[int] = field(default_factory=set)
    interrupts: dict[int, Callable[[], None]] = field(default_factory=dict)
    interrupting: set[int] = field(default_factory=set)
    watchers: dict[int, Watcher] = field(default_factory=dict)
    backgrounds: dict[int, list[Callable[[], bool]]] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)  # ranks whose program has ended
    _cut: dict[tuple[int, int], bool] = field(default_factory=dict)  # (dead, receiver): whether it keeps
    _stirred: set[int] = field(default_factory=set)
    _random: dict[tuple[int, int], random.Random] = field(default_factory=dict)
    _latest_s: dict[Key, float] = field(default_factory=dict)
    _free_s: dict[int, float] = field(default_factory=dict)  # when a rank's outgoing link is free

    def __post_init__(self) -> None:
        self.baton = Baton(self.size)
        self.known = [{} for _ in range(self.size)]
        for rank, death in (self.deaths or {}).items():
            self.baton.at(death.moment_s(self.seed, rank), partial(self._kill, rank, death))

    def park(self, rank: int, until_s: float, what: Callable[[], str]) -> None:
        """Give the baton away, as ``Baton.park``; whoever was killed meanwhile does not come back."""
        self.check_alive(rank)
        self.baton.park(rank, until_s, what)
        while self._paused(rank):
            self.baton.park(rank, self._pause_ends_s(rank), lambda: "the end of a pause")
        self.check_alive(rank)

    def check_alive(self, rank: int) -> None:
        """Raise Killed in the thread of a rank that was killed."""
        if rank in self.killed:
            raise Killed

    def _paused(self, rank: int) -> bool:
        return self.baton.time_s < self._pause_ends_s(rank)

    def _pause_ends_s(self, rank: int) -> float:
        """When the pause ends that a rank is in; 0 if it is in none."""
        pause = (self.pauses or {}).get(rank)
        return pause.end_s if pause is not None and pause.at_s <= self.baton.time_s else 0.0

    def _kill(self, rank: int, death: Death) -> None:
        if rank in self.over:
            return
        self.killed.add(rank)
        self.backgrounds.pop(rank, None)
        self.interrupts.pop(rank, None)
        chance = random.Random(f"{self.seed}/{rank}/death")
        for other in range(self.size):
            keeps = chance.random() < 0.5  # of what the dead rank had sent and nobody had taken
            self._cut[rank, other] = keeps
            for key in [key for key in self.arrived if (key[0], key[2]) == (other, rank)]:
                kept = deque(m for m in self.arrived[key] if keeps and len(m.data) <= EAGER_BYTES)
                self.arrived[key] = kept
                if not kept:
                    del self.arrived[key]
            if other != rank:
                after_s = chance.uniform(*death.noticed_s)
                self.baton.at(self.baton.time_s + after_s, partial(self._notice, other, rank))
        self.baton.wake(rank)

    def _notice(self, observer: int, rank: int) -> None:
        self.known[observer][rank] = "it was killed"
        self.stir(observer)

    def stir(self, rank: int) -> None:
        """An operation of ``rank`` has ended: it may run on, and what it does beside its program, too."""
        self.baton.wake(rank)
        if self.backgrounds.get(rank) and rank not in self._stirred:
            self._stirred.add(rank)
            self.baton.at(self.baton.time_s, lambda: self._run_background(rank))

    def _run_background(self, rank: int) -> None:
        if self._paused(rank):
            self.baton.at(self._pause_ends_s(rank), lambda: self._run_background(rank))
            return
        self._stirred.discard(rank)
        with self.undisturbed(rank):
            for tick in tuple(self.backgrounds.get(rank, ())):
                while tick():
                    pass

    @contextmanager
    def undisturbed(self, rank: int) -> Iterator[None]:
        """Within, unsuccessful polls of ``rank`` take no time."""
        outer = rank in self.interrupting
        self.interrupting.add(rank)
        try:
            yield
        finally:
            if not outer:
                self.interrupting.remove(rank)

    def end(self, rank: int, why: str | None) -> None:
        """The program of ``rank`` has returned, or raised; ``why`` tells those who wait for it."""
        self.backgrounds.pop(rank, None)
        self.over.add(rank)
        if why is not None and rank not in self.killed:
            for other in range(self.size):
                self.known[other][rank] = why
                self.stir(other)

    def send(self, key: Key, data: bytes, operation: Operation | None) -> None:
        """Put one message on its way; ``operation`` waits for it to be taken."""
        self.check_alive(key[2])
        self.record("send", key, data)
        if self.faults == Faults():
            self.deliver(key, Message(data, operation))
            return
        receiver, _, sender, _ = key
        # One generator per direction of a link: a new message elsewhere changes nothing here.
        if (sender, receiver) not in self._random:
            self._random[sender, receiver] = random.Random(f"{self.seed}/{sender}/{receiver}")
        link = self._random[sender, receiver]
        lost, doubled, held = (
            link.random() < p for p in (self.faults.loss, self.faults.duplicate, self.faults.reorder)
        )
        left_s = max(self.baton.time_s, self._free_s.get(sender, 0.0)) + len(data) / self.faults.bytes_per_s
        self._free_s[sender] = left_s
        arrivals_s = [left_s + link.uniform(*self.faults.delay_s) for _ in range(1 + doubled)]
        if held:
            arrivals_s[0] += link.uniform(0.0, self.faults.held_back_s)
        else:
            arrivals_s[0] = self._latest_s[key] = max(arrivals_s[0], self._latest_s.get(key, 0.0))
        if lost:
            self.record("lose", key, data)
            gone = Message(data, operation)
            self.baton.at(arrivals_s[0], gone.taken)
        else:
            message = Message(data, operation)
            self.baton.at(arrivals_s[0], lambda: self.deliver(key, message))
        if doubled and not lost:
            self.record("double", key, data)
            copy = Message(data, None)
            self.baton.at(max(arrivals_s), lambda: self.deliver(key, copy))

    def deliver(self, key: Key, message: Message) -> None:
        """A message reaches its receiver: an oldest matching receive takes it, or it waits for one."""
        self.record("deliver", key, message.data)
        if self._latest_s.get(key, math.inf) <= self.baton.time_s:
            del self._latest_s[key]  # later ones arrive later anyway; a run uses many tags
        receiver, stream, sender, tag = key
        if (sender, receiver) in self._cut and (
            not self._cut[sender, receiver] or len(message.data) > EAGER_BYTES
        ):
            return  # it was on its way when its sender died
        if tag == POST:
            self.inbox[receiver, stream].append((sender, message.data))
            self.stir(receiver)  # the interrupt function may want to see it, or what runs beside the program
        elif (receive := take_first(self.posted, key)) is not None:
            receive.take(message)
        else:
            self.arrived[key].append(message)

    def record(self, kind: str, key: Key, data: bytes) -> None:
        """Add one event to the trace, where there is one."""
        if self.trace is not None:
            receiver, stream, sender, tag = key
            crc = zlib.crc32(data)
            self.trace.append(
                TraceEvent(self.baton.time_s, kind, sender, receiver, stream, tag, len(data), crc)
            )

    def idle_note(self) -> str:
        """Who else waits, when a deadline passed although nothing was under way."""
        others = self.baton.waiting() if self.baton.idle() else ""
        return f" (nothing is in flight; {others})" if others else ""
