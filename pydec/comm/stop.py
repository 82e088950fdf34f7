"""SIGINT and SIGTERM on any rank stop every rank, and each writes what it has before any exits.

The signal handler only sets a flag. The flag is looked at inside waits and wherever the program
calls ``check``; the rank that sees it tells the others with a posted message.

A program that counts steps may end at a step instead (``defer``): every rank then tells every other which
step it is in when it hears of the stop, and all go on to the latest of these (``last_step``). Nobody waits
for a rank that waits for it: who is ahead stays where it is, with all that it owes sent, until the others
have told, and they tell from inside their waits.

In the same way a rank can have all of them come to one step and go on from there with others (``MEET``); that
raises nothing, and where it is too late for that nothing happens.
"""

from __future__ import annotations

import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

from pydec.comm.last_step import AT_ONCE, LastStep
from pydec.comm.transport import Pending, Stream, Transport
from pydec.comm.watch import Watch
from pydec.errors import FrameError, PeerLost, PeerTimeout, Stopped

_MEANS = {
    # What mpirun is told to forward: on SIGTERM itself it kills all ranks within half a second.
    signal.SIGUSR1: signal.SIGTERM,
    signal.SIGUSR2: signal.SIGINT,
}
MEET = int(signal.SIGWINCH)
"""In place of a signal: the ranks come to one step, and the job goes on with others."""
_NOTE = struct.Struct("<4sBI")  # b"stop", signal, rank that received it
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_FAREWELL_TAG = (1 << 22) + 1_000_000
_LAST_WORDS = b"gone"
_MOST_WORDS = 2000  # bytes
_NAP_S = 0.001


class StopGuard:
    """Context manager that turns a signal on any rank into ``Stopped`` on every rank.

    Inside, a wait of the transport raises Stopped as soon as a stop is known, once; ``check``
    raises it every time. Handlers are installed in the main thread only and restored at the end;
    elsewhere (a local cluster) ``request`` stands for the signal.

    Args:
        transport: any stream of the cluster; posted messages of the CONTROL stream are taken.
        signals: signals to turn into a stop; SIGUSR1 stands for SIGTERM and SIGUSR2 for SIGINT,
            which is how ``pydec run`` stops a job.
        watch: who judges silence; gets its notes from here, and raises where a stop would.
    """

    def __init__(
        self, transport: Transport, signals: tuple[int, ...] = _SIGNALS, *, watch: Watch | None = None
    ) -> None:
        self._transport = transport
        self._watch = watch
        self._control = transport.stream(Stream.CONTROL)
        self._signals = signals
        self._previous: dict[int, Any] = {}
        self._received: int | None = None  # set by the handler, which does nothing else
        self._stopped: Stopped | None = None
        self._step: Callable[[], int] | None = None
        self._agreement = LastStep(transport.rank, transport.size)
        self.last_words: dict[int, str] = {}
        """Why ranks said that they end alone, by rank."""

    def __enter__(self) -> StopGuard:
        if threading.current_thread() is threading.main_thread():
            for signum in self._signals:
                self._previous[signum] = signal.signal(signum, self._handle)
        self._transport.set_interrupt(self._interrupt)
        self._transport.watch(self._watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def anew(self, transport: Transport, watch: Watch | None) -> StopGuard:
        """A guard of another transport in the place of this one, which has ended; a signal is not lost."""
        guard = StopGuard(transport, self._signals, watch=watch)
        guard._received = self._received
        guard.last_words = self.last_words
        return guard

    def request(self, signum: int) -> None:
        """Do what the arrival of signal ``signum`` at this rank does."""
        if self._received in (None, MEET):
            self._received = _meaning(signum)

    @property
    def unheard(self) -> int | None:
        """A signal that came too late to stop anybody: all were about to meet."""
        return self._received if self.meets and self._received != MEET else None

    @property
    def meets(self) -> bool:
        """Whether what all ranks come to one step for is to go on with others."""
        return self._stopped is not None and self._stopped.signum == MEET

    def request_deferred(self, signum: int) -> bool:
        """Do the same where a stop is deferred, so that all ranks end at one step; whether that is so."""
        if self._step is None:
            return False
        self.request(signum)
        return True

    def check(self) -> None:
        """Raise Stopped if this rank received a signal or another announced a stop, unless it is deferred.

        Raises:
            LeftOut, CutOff: see ``Watch.check``.
        """
        self._look()
        if self._stopped is not None and self._step is None and not self.meets:
            raise self._stopped

    @contextmanager
    def defer(self, step: Callable[[], int]) -> Iterator[None]:
        """Within, a stop does not raise: the program asks ``reached`` after every step, and ends itself.

        Args:
            step: number of the step that is under way, at least 0; all ranks count alike.
        """
        self._step = step
        try:
            yield
        finally:
            self._step = None

    def reached(self, step: int) -> bool:
        """Whether all ranks stop now, after this step; from then on ``check`` raises.

        Once a stop is known it waits until every rank has said where it is, the transport's deadline at
        most.

        Args:
            step: that is done, with all that this rank owes others for it.

        Raises:
            Stopped: a rank could not be asked, or does not defer; the ranks do not end at one step.
        """
        self._look()
        if self._stopped is None:
            return False
        last = self._latest()
        if last < 0:
            if self.meets:
                return False
            self._step = None
            raise self._stopped
        if step < last:
            return False
        self._step = None
        return True

    def goodbye(self, timeout_s: float = 10.0) -> bool:
        """Wait until every peer has come here too; returns whether all have.

        Call it last, with all files written: a launcher may kill the other ranks as soon as one
        exits with a status that is not 0.

        Args:
            timeout_s: longest time to wait in all; peers that are gone are not waited for.
        """
        self._release()
        link = self._control
        peers = [peer for peer in range(link.size) if peer != link.rank]
        until_s = link.now() + timeout_s
        receives = [link.irecv(peer, _FAREWELL_TAG, memoryview(bytearray(1))) for peer in peers]
        sends = [link.isend(peer, _FAREWELL_TAG, memoryview(b"!")) for peer in peers]
        arrived = [_ends(receive, lambda: until_s - link.now()) for receive in receives]
        sent = [_ends(send, lambda: until_s - link.now()) for send in sends]
        return all(arrived) and all(sent)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.request(signum)

    def _release(self) -> None:
        self._transport.set_interrupt(None)
        self._transport.watch(None)

    def _interrupt(self) -> None:
        if self._stopped is None:
            self.check()
        else:  # raised once: what is written afterwards may wait undisturbed
            self._look()

    def _look(self) -> None:
        """See what has come: a signal, notes of other ranks, deaths; and tell what they are to know."""
        link = self._control
        if self._stopped is None and self._received is not None:
            note = _NOTE.pack(b"stop", self._received, link.rank)
            for peer in range(link.size):
                if peer != link.rank:
                    with suppress(PeerTimeout):  # a peer that takes nothing cannot be told
                        link.post(peer, note)
            self._know(Stopped(self._received, link.rank))
        while (arrived := link.poll()) is not None:
            sender, data = arrived
            if data[:4] == _LAST_WORDS:
                self.last_words[sender] = data[4:].decode(errors="replace")
            elif self._watch is not None and self._watch.hears(data):
                self._watch.hear(sender, data)
            elif len(data) == _NOTE.size and data[:4] == b"stop":
                _, signum, origin = _NOTE.unpack(data)
                self._know(Stopped(signum, origin))
            elif data[:4] == b"step":
                with suppress(FrameError):
                    self._know(Stopped(*self._agreement.hear(sender, data)))
        if self._stopped is not None:
            self._agree(self._stopped)
        if self._watch is not None:
            self._watch.check()

    def _know(self, stopped: Stopped) -> None:
        """A stop is known, perhaps from one that was told before its origin died."""
        if self._stopped is None:
            self._stopped = stopped
            self._agreement.announce(AT_ONCE if self._step is None else self._step())

    def _agree(self, stopped: Stopped) -> None:
        """Tell all others where this rank is, and what else they need to agree on the last step."""
        link = self._control
        self._agreement.lose(link.lost())
        for note in self._agreement.notes(stopped.signum, stopped.origin):
            for peer in self._agreement.others:
                with suppress(PeerTimeout, PeerLost):  # who is gone needs to know nothing
                    link.post(peer, note)

    def _latest(self) -> int:
        """The latest step that any rank is in, or ``AT_ONCE``; waits until it is agreed on."""
        link = self._control
        until_s = link.now() + link.deadline_s
        while self._agreement.last is None and link.now() < until_s:
            self._look()
            if self._agreement.last is None:
                time.sleep(_NAP_S)
        return AT_ONCE if self._agreement.last is None else self._agreement.last


def last_words(link: Transport, words: str) -> None:
    """Tell all peers why this rank ends, alone; for the CONTROL stream."""
    for peer in range(link.size):
        if peer != link.rank:
            with suppress(PeerTimeout, PeerLost):
                link.post(peer, _LAST_WORDS + words.encode()[:_MOST_WORDS])


def _ends(pending: Pending, left_s: Callable[[], float]) -> bool:
    """Whether a farewell completes in the time that is left; gives it up otherwise."""
    try:
        pending.wait(max(0.0, left_s()))
    except (PeerTimeout, PeerLost):
        try:
            pending.cancel()
        except PeerTimeout:
            pass
        return False
    return True


def _meaning(signum: int) -> int:
    return int(_MEANS.get(signal.Signals(signum), signum))
