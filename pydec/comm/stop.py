"""SIGINT and SIGTERM on any rank stop every rank, and each writes what it has before any exits.

The signal handler only sets a flag. The flag is looked at inside waits and wherever the program
calls ``check``; the rank that sees it tells the others with a posted message.
"""

from __future__ import annotations

import signal
import struct
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from pydec.comm.transport import Pending, Stream, Transport
from pydec.errors import PeerLost, PeerTimeout, Stopped

_MEANS = {
    # What mpirun is told to forward: on SIGTERM itself it kills all ranks within half a second.
    signal.SIGUSR1: signal.SIGTERM,
    signal.SIGUSR2: signal.SIGINT,
}
_NOTE = struct.Struct("<4sBI")  # b"stop", signal, rank that received it
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_FAREWELL_TAG = (1 << 22) + 1_000_000


class StopGuard:
    """Context manager that turns a signal on any rank into ``Stopped`` on every rank.

    Inside, a wait of the transport raises Stopped as soon as a stop is known, once; ``check``
    raises it every time. Handlers are installed in the main thread only and restored at the end;
    elsewhere (a local cluster) ``request`` stands for the signal.

    Args:
        transport: any stream of the cluster; posted messages of the CONTROL stream are taken.
        signals: signals to turn into a stop; SIGUSR1 stands for SIGTERM and SIGUSR2 for SIGINT,
            which is how ``pydec run`` stops a job.
    """

    def __init__(self, transport: Transport, signals: tuple[int, ...] = _SIGNALS) -> None:
        self._transport = transport
        self._control = transport.stream(Stream.CONTROL)
        self._signals = signals
        self._previous: dict[int, Any] = {}
        self._received: int | None = None  # set by the handler, which does nothing else
        self._stopped: Stopped | None = None

    def __enter__(self) -> StopGuard:
        if threading.current_thread() is threading.main_thread():
            for signum in self._signals:
                self._previous[signum] = signal.signal(signum, self._handle)
        self._transport.set_interrupt(self._interrupt)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.set_interrupt(None)
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous.clear()

    def request(self, signum: int) -> None:
        """Do what the arrival of signal ``signum`` at this rank does."""
        if self._received is None:
            self._received = _meaning(signum)

    def check(self) -> None:
        """Raise Stopped if this rank received a signal or another one announced a stop."""
        if self._stopped is None:
            self._look()
        if self._stopped is not None:
            raise self._stopped

    def goodbye(self, timeout_s: float = 10.0) -> bool:
        """Wait until every peer has come here too; returns whether all have.

        Call it last, with all files written: a launcher may kill the other ranks as soon as one
        exits with a status that is not 0.

        Args:
            timeout_s: longest time to wait in all; peers that are gone are not waited for.
        """
        self._transport.set_interrupt(None)
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

    def _interrupt(self) -> None:
        if self._stopped is None:  # raised once: what is written afterwards may wait undisturbed
            self.check()

    def _look(self) -> None:
        link = self._control
        if self._received is not None:
            note = _NOTE.pack(b"stop", self._received, link.rank)
            for peer in range(link.size):
                if peer != link.rank:
                    try:
                        link.post(peer, note)
                    except PeerTimeout:  # a peer that takes nothing cannot be told
                        continue
            self._stopped = Stopped(self._received, link.rank)
            return
        while (arrived := link.poll()) is not None:
            data = arrived[1]
            if len(data) == _NOTE.size and data[:4] == b"stop":
                _, signum, origin = _NOTE.unpack(data)
                self._stopped = Stopped(signum, origin)
                return


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
    return _MEANS.get(signal.Signals(signum), signum)
