"""Exchanges in which nobody waits for a peer: one message under way per neighbour, and a common end.

A rank sends to a neighbour only when its last message to it has been taken, and what it sends then is the
newest there is: a fast rank cannot flood a slow one, and memory is bounded whatever the speeds. Messages
move in the background of the computation (``Transport.background``).

**The end.** Ranks end at different times, and what comes then (an exact merge, an evaluation) needs
all of them. A rank that has ended goes on receiving, and tells its neighbours which ranks it knows to have
ended; who has ended passes that on. The rank that knows of all sends its last message to each
neighbour, and leaves when it has heard theirs: no message is then under way. Whoever waits so long for a
neighbour that the transport's deadline passes without a sign of it raises PeerTimeout.

**A peer that is gone** (``PeerLost``) is waited for by nobody, nor are ranks that could only be heard through
it; its weight returns to the own model. A peer that is only silent leaves its last copy, until it counts as
dead (``Transport.attend``).
"""

from __future__ import annotations

import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pydec.comm.frames import Frame, Kind
from pydec.comm.transport import Background, Transport
from pydec.errors import FrameError, PeerLost, PeerTimeout, ProtocolError
from pydec.gossip.ending import Ending
from pydec.gossip.links import Sink, Source
from pydec.gossip.memory import Slots
from pydec.gossip.packets import read_frame, too_long
from pydec.topology.base import Topology
from pydec.trace import span, traced

_FIRST_TAG = 1 << 22  # above those of ``Exchange``
_NAP_S = 20e-3  # how long a rank that has ended waits before it looks round
_STILL_S = 1.0  # between two looks of a rank that has ended: more is no waiting
_SIGNS = 4  # signs of life per deadline, once a rank has ended

_opened: WeakKeyDictionary[Transport, itertools.count[int]] = WeakKeyDictionary()


class Asynchronous(ABC):
    """Neighbours, messages and the end; subclasses say what is sent and what is done with it.

    ``begin`` publishes the models as they are after a step; ``finish``, before the next, takes in what
    has arrived. Neither waits. ``flush`` meets all other ranks. Constructed by all ranks together.

    Args:
        transport: the stream to use; owned by the caller.
        topology: who hears whom, the same in every round.
        message_bytes: longest message, its header included.
        slots: messages that the subclass keeps, beside one per neighbour that is being received.
        epoch: written into every frame; packets of another epoch are refused.

    Attributes:
        pending: whether ``begin`` has been called and ``finish`` not yet.
        wait_s: seconds spent in ``flush``.
        dropped: copies that were older than what was there already.
        moved: 0; see ``Exchange``.
        gone: neighbours that are gone.
    """

    kind: ClassVar[Kind]

    def __init__(
        self, transport: Transport, topology: Topology, message_bytes: int, slots: int, *, epoch: int
    ) -> None:
        self.transport = transport
        self.epoch = epoch
        self.weights = topology.row(transport.rank, 0)[1]
        self.listeners = topology.listeners(transport.rank, 0)
        self.pending = False
        self.wait_s = 0.0
        self.dropped = 0
        self.moved = 0.0
        self.gone: set[int] = set()
        self.slots = Slots(slots + len(self.weights), message_bytes)
        self.lock = threading.Lock()
        # Two exchanges on one stream must not take one another's messages; all ranks count alike.
        self._tag = next(_opened.setdefault(transport, itertools.count(_FIRST_TAG)))
        self._sources = {peer: Source(self.slots.free.pop()) for peer in self.weights}
        self._sinks = {peer: Sink() for peer in self.listeners}
        self._work: Background | None = None
        self._open = self._ending = False
        self._looked_s = 0.0
        self._begun = 0
        self._ends = Ending(transport.rank, topology, epoch)
        self._error: Exception | None = None

    # What a subclass is asked; the lock is held, but for ``publish`` and ``mix``.

    @abstractmethod
    def publish(self) -> None:
        """The models are as their neighbours should see them."""

    @abstractmethod
    def mix(self) -> None:
        """Take in what has arrived."""

    @abstractmethod
    def outgoing(self, peer: int) -> tuple[NDArray[np.uint8], int | None] | None:
        """The next message for an idle neighbour and what ``delivered`` shall be told, if anything."""

    @abstractmethod
    def delivered(self, peer: int, content: int) -> None:
        """A message has been taken, or will never be: its memory may be written again."""

    @abstractmethod
    def arrived(self, peer: int, frame: Frame, slot: int) -> int | None:
        """A message of this kind from ``peer`` lies in ``slot``: returns the slot to receive the next in.

        None keeps it where it is, to be offered again.
        """

    @abstractmethod
    def lost(self, peer: int) -> None:
        """A neighbour is gone."""

    def settled(self) -> bool:
        """Whether nobody owes this rank an answer, so that it may count as ended."""
        return True

    def met(self) -> None:  # noqa: B027  # nothing to do for most
        """All ranks have ended and nothing is under way: forget what was received."""

    # What the optimiser calls.

    def begin(self, round: int) -> None:
        """Publish the models; returns without waiting.

        Raises:
            ProtocolError, PeerError: what a neighbour sent, or did, since the last call.
        """
        self._raise()
        self._begun += 1
        if not self._open:
            self._start()
        self.publish()
        self.pending = True
        if self._work is not None:
            self._work.kick()
        self._move_unless_background()

    def finish(self, *, mix: bool = True) -> None:
        """Take in what has arrived by now; returns without waiting.

        Args:
            mix: False leaves the models alone.

        Raises:
            ProtocolError, PeerError: as ``begin``.
        """
        if not self.pending:
            raise RuntimeError("nothing has been published")
        self._move_unless_background()
        self._raise()
        self._attend()
        if mix:
            self.mix()
        self.pending = False

    def run(self, round: int) -> None:
        """``begin`` and ``finish``."""
        self.begin(round)
        self.finish()

    @traced("wait")
    def flush(self, *, mix: bool = True) -> None:
        """Meet all other ranks, each of which calls this; afterwards no message is under way.

        Args:
            mix: False leaves the models alone.

        Raises:
            PeerTimeout: a neighbour gave no sign of life for the transport's deadline.
            ProtocolError, PeerError: as ``begin``.
            Stopped: the job is being stopped.
        """
        for _ in self.ending(mix=mix):
            self._await()

    def ending(self, *, mix: bool = True) -> Iterator[None]:
        """``flush`` for whoever cannot wait here: go on after each item once something may have happened."""
        if not self._open:
            return
        started_s = self.transport.now()
        self._stop()
        self._raise()
        self._ending, self._looked_s = True, started_s
        for source in self._sources.values():
            source.heard_s = started_s
        while not self._over():
            if self.settled():
                self._ends.add(self.transport.rank)
            if not self._move() and not self._over():
                yield
        self.met()
        for source in self._sources.values():
            source.last = False
        for sink in self._sinks.values():
            sink.told, sink.last = -1, False
        self._open = self._ending = False
        self._ends.reset()
        self.wait_s += self.transport.now() - started_s

    def close(self) -> None:
        """Give up what is under way, without a word to anybody."""
        self._stop()
        for source in self._sources.values():
            if source.receive is not None:
                source.receive.cancel()
                source.receive = None
        for sink in self._sinks.values():
            if sink.send is not None:
                sink.send.cancel()
                sink.send = None
        self._open = self.pending = False

    @property
    def all_ended(self) -> bool:
        """Whether nobody needs a model any more."""
        return self._ending and self._ends.complete

    @property
    def buffer_bytes(self) -> int:
        """Bytes of all messages that are kept, sent or received."""
        return self.slots.nbytes

    # Messages.

    def _start(self) -> None:
        for peer, source in self._sources.items():
            if peer not in self.gone:
                self._receive(peer, source)
        self._open = True
        if self._sources or self._sinks:
            self._work = self.transport.background(self._tick)

    def _stop(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.close()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _tick(self) -> bool:
        """Called beside the program; what goes wrong is raised by the program's next call."""
        if self._error is not None or not self.lock.acquire(blocking=False):
            return False
        try:
            return self._move()
        except Exception as error:
            self._error = error
            return False
        finally:
            self.lock.release()

    def _move_unless_background(self) -> None:
        if self._work is None and self._open:
            while self._move():
                pass

    def _move(self) -> bool:
        """Look at every neighbour once; whether anything happened."""
        happened = [self._look(*item) for item in self._sources.items()]
        return any(happened + [self._serve(*item) for item in self._sinks.items()])

    def _receive(self, peer: int, source: Source) -> None:
        source.held = False
        source.receive = self.transport.irecv(peer, self._tag, memoryview(self.slots[source.slot]))

    def _look(self, peer: int, source: Source) -> bool:
        if source.receive is None:
            return False
        try:
            if not source.receive.done():
                return False
        except PeerLost:
            self._lose(peer)
            return True
        except FrameError as error:
            raise too_long(peer, error) from error
        message = self.slots[source.slot][: source.receive.n_bytes]
        frame = read_frame(peer, message)
        if (frame.sender, frame.epoch) != (peer, self.epoch):
            which = f"of sender {frame.sender} in epoch {frame.epoch}, expected {peer} in epoch {self.epoch}"
            raise ProtocolError(peer, f"sent a packet {which}")
        if not source.held:
            source.heard_s = self.transport.now()
        if frame.kind is Kind.ENDED:
            source.receive = None
            source.last = self._ends.hear(frame, message)
            if not source.last:
                self._receive(peer, source)
            return True
        slot = self.arrived(peer, frame, source.slot)
        if slot is None:
            first, source.held = not source.held, True
            return first
        source.slot = slot
        self._receive(peer, source)
        return True

    def _serve(self, peer: int, sink: Sink) -> bool:
        if peer in self.gone:
            return False
        try:
            if sink.send is not None:
                if not sink.send.done():
                    return False
                self._sent(peer, sink)
        except PeerLost:
            self._lose(peer)
            return True
        if sink.last:
            return False
        found = self.outgoing(peer)
        message = found[0] if found is not None else self._note(sink)
        if message is None:
            return False
        sink.content = found[1] if found is not None else None
        sink.sent_s = self.transport.now()
        with span("send", peer=peer):
            sink.send = self.transport.isend(peer, self._tag, memoryview(message), matched=True)
        return True

    def _sent(self, peer: int, sink: Sink) -> None:
        sink.send, content = None, sink.content
        if content is not None:
            self.delivered(peer, content)

    def _note(self, sink: Sink) -> NDArray[np.uint8] | None:
        """Which ranks have ended: once this rank has, as news; else, while others wait, as a sign of life."""
        last, known = self._ends.complete, self._ends.known
        news = self._ending and sink.told != known
        silent = self.transport.now() - sink.sent_s > self.transport.deadline_s / _SIGNS
        alive = self._ending or sink.begun != self._begun  # the background lives longer than the program
        if not (last or news or (known and silent and alive)):
            return None
        sink.told, sink.last, sink.begun = known, last, self._begun
        return self._ends.note(last=last)

    def _attend(self) -> None:
        """Who hangs is waited for at the end, and its copy is mixed, for as long as it has grace."""
        waiting = {peer for peer, source in self._sources.items() if source.receive is not None}
        waiting |= {peer for peer, sink in self._sinks.items() if sink.send is not None}
        for peer in sorted(waiting - self.gone):
            self.transport.attend(peer)

    def _lose(self, peer: int) -> None:
        self.gone.add(peer)
        self._ends.add(peer, gone=True)
        if peer in self._sources:
            self._sources[peer].receive = None
        sink = self._sinks.get(peer)
        if sink is not None and sink.send is not None:
            sink.send.cancel()
            self._sent(peer, sink)
        self.lost(peer)

    # The end.

    def _over(self) -> bool:
        return (
            self._ends.complete
            and all(source.last for peer, source in self._sources.items() if peer not in self.gone)
            and all(
                sink.last and sink.send is None for peer, sink in self._sinks.items() if peer not in self.gone
            )
        )

    def _await(self) -> None:
        """Sleep until something may have happened."""
        self._attend()
        now_s = self.transport.now()
        still_s = max(0.0, now_s - self._looked_s - _STILL_S)  # this rank itself stood still
        self._looked_s = now_s
        for peer, source in self._sources.items():
            source.heard_s += still_s
            waited_s = now_s - source.heard_s
            if peer not in self.gone and not source.last and waited_s > self.transport.limit_s(peer):
                raise PeerTimeout(peer, f"has not ended, and sent nothing for {waited_s:.3g} s")
        waits = [source.receive for source in self._sources.values() if not source.held]
        waits += [sink.send for sink in self._sinks.values()]
        for pending in filter(None, waits):
            with suppress(PeerTimeout, PeerLost):
                pending.wait(_NAP_S)
            return
