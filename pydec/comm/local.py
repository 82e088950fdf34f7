"""A cluster of peers inside one process, with seeded faults and a clock of its own.

The same blocking program that runs over MPI runs here, one thread per rank of which one runs at a
time, so a run is a function of its seed: same order of events, same bits. Messages larger than
``EAGER_BYTES`` complete at the sender only when the receiver takes them, as on MPI, so a program
that would deadlock there deadlocks here, with a message that says who waits for what.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar, cast

from pydec.comm.baton import Abandoned, Deadlock
from pydec.comm.buffers import check_peer, check_post, check_tag, flat
from pydec.comm.faults import EAGER_BYTES, Death, Faults, Killed, Pause
from pydec.comm.transport import Background, Pending, Stream, Transport, Watcher
from pydec.comm.virtual import (
    POST,
    Endpoint,
    Network,
    Operation,
    Receive,
    TraceEvent,
    take_first,
)
from pydec.errors import ConfigError

__all__ = [
    "EAGER_BYTES",
    "Deadlock",
    "Death",
    "Faults",
    "LocalCluster",
    "LocalTransport",
    "Pause",
    "TraceEvent",
    "solo",
]

T = TypeVar("T")


class LocalTransport(Endpoint):
    """One rank's end of a local cluster, on one stream; see ``Transport``.

    ``now`` is the virtual clock, which only moves while every rank waits. The interrupt function is
    shared by the streams of a rank and runs at every wait and whenever a posted message arrives.
    """

    def __init__(self, net: Network, rank: int, stream: Stream = Stream.GOSSIP) -> None:
        super().__init__(net, rank, stream, net.deadline_s)
        self.size = net.size
        self._streams: dict[Stream, LocalTransport] = {stream: self}

    @property
    def tolerant(self) -> bool:
        """See ``Transport.tolerant``: whether the cluster kills or stops anybody."""
        return self.net.deaths is not None or self.net.pauses is not None

    @property
    def takes_gpu_memory(self) -> bool:
        """See ``Transport.takes_gpu_memory``."""
        return False

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """See ``Transport.isend``."""
        check_peer(peer, self.size)
        check_tag(tag)
        view = flat(data, writable=False)
        what = f"receive of {len(view)} bytes by rank {peer} ({self._where(tag)})"
        send = Operation(self, peer, what, view, n_bytes=len(view))
        send.complete = len(view) <= EAGER_BYTES and not matched and peer not in self.net.known[self.rank]
        self.bytes_sent += len(view)
        self.sent_to[peer] += len(view)
        self.net.send((peer, self.stream_id, self.rank, tag), bytes(view), send)
        return send

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """See ``Transport.irecv``."""
        check_peer(peer, self.size)
        check_tag(tag)
        view = flat(into, writable=True)
        key = (self.rank, self.stream_id, peer, tag)
        receive = Receive(self, peer, f"message from rank {peer} ({self._where(tag)})", view, key=key)
        message = take_first(self.net.arrived, key)
        if message is not None:
            receive.take(message)
        else:
            self.net.posted[key].append(receive)
        return receive

    def stream(self, stream: Stream) -> LocalTransport:
        """See ``Transport.stream``."""
        if stream not in self._streams:
            other = LocalTransport(self.net, self.rank, stream)
            other._streams = self._streams
            self._streams[stream] = other
        return self._streams[stream]

    def post(self, peer: int, data: bytes) -> None:
        """See ``Transport.post``."""
        check_peer(peer, self.size)
        check_post(len(data))
        self.bytes_sent += len(data)
        self.sent_to[peer] += len(data)
        self.net.send((peer, self.stream_id, self.rank, POST), bytes(data), None)

    def poll(self) -> tuple[int, bytes] | None:
        """See ``Transport.poll``."""
        inbox = self.net.inbox[self.rank, self.stream_id]
        if not inbox:
            self.pause(lambda: f"posted message (stream {self.stream_id.name})")
        if not inbox:
            return None
        sender, data = inbox.popleft()
        self.bytes_received += len(data)
        return sender, data

    def lost(self) -> frozenset[int]:
        """See ``Transport.lost``: ranks that were killed, or whose program raised."""
        return frozenset(self.net.known[self.rank])

    def expel(self, peer: int) -> None:
        """See ``Transport.expel``."""
        check_peer(peer, self.size)
        self.net.known[self.rank].setdefault(peer, "it is held for dead")
        self.net.stir(self.rank)

    def watch(self, watcher: Watcher | None) -> None:
        """See ``Transport.watch``."""
        if watcher is None:
            self.net.watchers.pop(self.rank, None)
        else:
            self.net.watchers[self.rank] = watcher

    def attend(self, peer: int) -> None:
        """See ``Transport.attend``."""
        if self.watcher is not None:
            self.watcher.waits(peer)

    def advance(self) -> None:
        """See ``Transport.advance``; messages here move by themselves."""

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background:
        """See ``Transport.background``."""
        return _Background(self.net, self.rank, tick)

    def set_interrupt(self, interrupt: Callable[[], None] | None) -> None:
        """See ``Transport.set_interrupt``."""
        if interrupt is None:
            self.net.interrupts.pop(self.rank, None)
        else:
            self.net.interrupts[self.rank] = interrupt

    def now(self) -> float:
        """See ``Transport.now``."""
        return time.monotonic() if self.net.real_clock else self.net.baton.time_s

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass, as a computation of that length would."""
        until_s = self.net.baton.time_s + seconds
        while self.net.baton.time_s < until_s:
            self.net.park(self.rank, until_s, lambda: f"the end of a sleep of {seconds:g} s")

    def close(self) -> None:
        """See ``Transport.close``; nothing to release here."""

    def _where(self, tag: int) -> str:
        return f"stream {self.stream_id.name}, tag {tag}"


class _Background:
    """A tick in its rank's list, until it is closed."""

    def __init__(self, net: Network, rank: int, tick: Callable[[], bool]) -> None:
        self._net, self._rank, self._tick = net, rank, tick
        self._ticks = net.backgrounds.setdefault(rank, [])
        self._ticks.append(tick)

    def kick(self) -> None:
        """See ``Background.kick``."""
        self._net.stir(self._rank)

    def close(self) -> None:
        """See ``Background.close``."""
        if self._tick in self._ticks:
            self._ticks.remove(self._tick)


class LocalCluster:
    """A cluster of ``size`` peers in this process; every ``run`` starts afresh from the seed.

    Args:
        size: number of ranks, at least 1.
        seed: decides every fault; same seed, same program: same trace and same bits.
        delay_s: seconds that a message takes, or (least, most).
        loss, duplicate, reorder: probabilities per message, see ``Faults``.
        bytes_per_s: what each rank's outgoing link carries.
        deadline_s: the transports' deadline, on the virtual clock.
        deaths: who is killed, and when; see ``Death``. The transports are then ``tolerant``.
        pauses: who stands still, and when; see ``Pause``. The transports are then ``tolerant``.
        trace: whether to keep every event in ``self.trace``.

    Attributes:
        trace: events of the last run, in order; empty unless asked for.
        errors: what each rank of the last run raised, or None.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        *,
        delay_s: float | tuple[float, float] = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        bytes_per_s: float = math.inf,
        deadline_s: float = 60.0,
        deaths: Mapping[int, Death] | None = None,
        pauses: Mapping[int, Pause] | None = None,
        trace: bool = False,
    ) -> None:
        if size < 1:
            raise ConfigError(f"a cluster needs at least 1 rank, got size={size}")
        self.size = size
        self.seed = seed
        self.faults = Faults(
            delay_s if isinstance(delay_s, tuple) else (delay_s, delay_s),
            loss,
            duplicate,
            reorder,
            bytes_per_s,
        )
        self.deadline_s = deadline_s
        self.deaths = deaths
        self.pauses = pauses
        for rank in (*(deaths or ()), *(pauses or ())):
            check_peer(rank, size)
        self.trace: list[TraceEvent] = []
        self.errors: list[BaseException | None] = []
        self._tracing = trace

    def run(self, program: Callable[[LocalTransport], T]) -> list[T]:
        """Run ``program(transport)`` on every rank and return its results by rank; None of one killed.

        Raises:
            Exception: the first one that a rank raised, with a note that names the rank; the
                others see PeerLost in their waits for that rank.
            Deadlock: every rank waits without a deadline and no message is in flight.
        """
        self.trace = []
        net = Network(
            self.size, self.seed, self.faults, self.deadline_s, self.trace if self._tracing else None,
            deaths=self.deaths, pauses=self.pauses,
        )  # fmt: skip
        results: dict[int, T] = {}
        self.errors = [None] * self.size
        order: list[int] = []

        def body(rank: int) -> None:
            try:
                results[rank] = program(LocalTransport(net, rank))
                net.end(rank, None)
            except Killed as death:
                self.errors[rank] = death
                net.end(rank, None)
            except BaseException as error:
                self.errors[rank] = error
                order.append(rank)
                net.end(rank, f"its program raised {type(error).__name__}: {error}")

        net.baton.run([partial(body, rank) for rank in range(self.size)])
        if order:
            first = self.errors[order[0]]
            assert first is not None
            if not isinstance(first, Abandoned) and hasattr(first, "add_note"):  # Python 3.11
                first.add_note(f"raised by rank {order[0]} of a local cluster of {self.size}")
            raise first
        return [cast(T, results.get(rank)) for rank in range(self.size)]


def solo(deadline_s: float = 60.0) -> Transport:
    """The transport of a cluster of one: no thread, no MPI, the machine's own clock."""
    return LocalTransport(Network(1, 0, Faults(), deadline_s, None, real_clock=True), 0)
