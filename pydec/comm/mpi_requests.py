"""Requests of MPI operations: asked without being freed, and kept while MPI may use their memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydec.comm.backoff import Backoff, Limit
from pydec.comm.detect import fault_tolerant, first_line
from pydec.errors import FrameError, PeerError, PeerLost, PeerTimeout

if TYPE_CHECKING:
    from pydec.comm.mpi import MpiTransport

_COUNT_LIMIT = (1 << 31) - 1  # MPI counts in C int; longer messages go as one derived type
_BLOCK = 64  # bytes of the derived type's blocks; counts up to 128 GiB
_WATCH_S = 2e-3  # how often a wait looks for lost peers; MPI answers within a microsecond
_LISTEN_S = 20e-3  # how often for goodbyes
_LEAVE_S = 5.0  # how long a peer that said goodbye may still be completing what it sent before
_CANCEL_S = 1.0  # how long a receive that is already being filled may take to end


class Requests:
    """What all operations of the process share: error classes, lost peers, operations given up.

    Args:
        mpi: the ``mpi4py.MPI`` module, initialised.
        comm: a communicator of all ranks.
    """

    def __init__(self, mpi: Any, comm: Any) -> None:
        self.mpi = mpi
        self.lost: set[int] = set()  # ranks that MPI reports as dead
        self.left: dict[int, float] = {}  # ranks that said goodbye, and when
        self.listen: Callable[[], None] = lambda: None  # updates ``left``; set by whoever receives goodbyes
        self._comm = comm
        self._watch_at_s = self._listen_at_s = 0.0
        self._detects = hasattr(comm, "Get_failed")
        self.tolerant = fault_tolerant() and self._detects
        self._given_up: deque[tuple[Any, Any]] = deque()  # requests and memory that MPI may still use
        self._lock = threading.Lock()
        failure_classes = ("ERR_PROC_FAILED", "ERR_PROC_FAILED_PENDING", "ERR_REVOKED", "ERR_PROC_ABORTED")
        self.failures = {getattr(mpi, name) for name in failure_classes if hasattr(mpi, name)}

    def buffer(self, view: memoryview) -> tuple[list[Any], Any]:
        """MPI's description of ``view`` and the datatype to free afterwards, or None."""
        if len(view) <= _COUNT_LIMIT:
            return [view, len(view), self.mpi.BYTE], None
        blocks, rest = divmod(len(view), _BLOCK)
        block = self.mpi.BYTE.Create_contiguous(_BLOCK)
        if rest == 0:  # one contiguous piece, which MPI moves much faster
            block.Commit()
            return [view, blocks, block], block
        whole = self.mpi.Datatype.Create_struct([blocks, rest], [0, blocks * _BLOCK], [block, self.mpi.BYTE])
        whole.Commit()
        block.Free()
        return [view, 1, whole], whole

    def give_up(self, request: Any, memory: Any) -> None:
        """Keep a request that MPI has not finished, with its memory, until it has."""
        self._given_up.append((request, memory))

    def sweep(self) -> None:
        """Let go of some operations that were given up and have completed since."""
        if not self._given_up or not self._lock.acquire(blocking=False):
            return
        try:
            for _ in range(min(4, len(self._given_up))):
                request, memory = self._given_up.popleft()
                if not self.settled(request):
                    self._given_up.append((request, memory))
        finally:
            self._lock.release()

    def settled(self, request: Any) -> bool:
        """Whether a request has completed without error; frees it then."""
        try:
            status = self.mpi.Status()
            if not request.Get_status(status) or status.Get_error():
                return False
            request.Test()
            return True
        except self.mpi.Exception:
            return False

    def check(self, peer: int, since_s: float, what: Callable[[], str]) -> None:
        """Raise PeerLost if nothing more can come of an operation with ``peer``.

        Args:
            peer: the other rank.
            since_s: when the operation began, on ``time.monotonic``'s clock.
            what: says what is awaited.
        """
        now_s = time.monotonic()
        if now_s >= self._watch_at_s:
            self.watch()
        if now_s >= self._listen_at_s:
            self._listen_at_s = now_s + _LISTEN_S
            self.listen()
        if peer in self.lost:
            raise PeerLost(peer, f"is gone: no {what()}")
        if peer in self.left and now_s - max(since_s, self.left[peer]) > _LEAVE_S:
            raise PeerLost(peer, f"has left the job: no {what()}")

    def peer_error(self, peer: int, code: int, what: str) -> PeerError:
        """The error for an MPI error code on an operation with ``peer``."""
        mpi_class = self.mpi.Get_error_class(code)
        if mpi_class in self.failures:
            self.lost.add(peer)
            return PeerLost(peer, f"is gone: no {what}")
        reason = first_line(self.mpi.Get_error_string(code))
        return PeerError(peer, f"cannot be reached ({reason}): no {what}")

    def watch(self) -> None:
        """Now and then, ask MPI who is dead: only then do receives from a dead rank end."""
        now_s = time.monotonic()
        if not self._detects or now_s < self._watch_at_s:
            return
        self._watch_at_s = now_s + _WATCH_S
        try:
            group = self._comm.Get_failed()
            if group.Get_size():
                ours = self._comm.Get_group()
                self.lost.update(group.Translate_ranks(range(group.Get_size()), ours))
                ours.Free()
            group.Free()
        except (self.mpi.Exception, NotImplementedError):
            self._detects = self.tolerant = False


class MpiPending:
    """One send or receive; owns the request and the memory until both are the caller's again."""

    __slots__ = (
        "_datatype",
        "_error",
        "_memory",
        "_n_bytes",
        "_owner",
        "_receives",
        "_request",
        "_shared",
        "_since_s",
        "_tag",
        "peer",
    )

    def __init__(
        self,
        owner: MpiTransport,
        peer: int,
        tag: int,
        memory: memoryview,
        start: Callable[..., Any],
        *,
        receives: bool = False,
    ) -> None:
        self._request: Any = None
        self.peer = peer
        self._owner = owner
        self._receives = receives
        self._shared = shared = owner.job.requests
        self._tag = tag
        self._since_s = time.monotonic()
        self._memory: memoryview | None = memory
        self._n_bytes = len(memory)
        self._error: PeerError | FrameError | None = None
        self._datatype: Any = None
        try:
            where, self._datatype = shared.buffer(memory)
            self._request = start(where, peer, tag)
        except shared.mpi.Exception as error:
            self._error = shared.peer_error(peer, error.Get_error_code(), self._what())

    @property
    def n_bytes(self) -> int:
        """See ``Pending.n_bytes``."""
        return self._n_bytes

    def done(self) -> bool:
        """See ``Pending.done``."""
        if self._error is not None:
            raise self._error
        if self._request is None:
            return True
        shared = self._shared
        status = shared.mpi.Status()
        try:
            if not self._request.Get_status(status):
                shared.check(self.peer, self._since_s, self._what)
                return False
            code = status.Get_error()
            if not code:
                self._request.Test()
        except PeerLost as error:
            self._fail(error)
        except shared.mpi.Exception as error:
            code = error.Get_error_code()
        if code:
            self._fail(self._translated(code, status))
        if self._receives:
            self._n_bytes = status.Get_elements(shared.mpi.BYTE)
            self._owner.bytes_received += self._n_bytes
            if self._owner.job.watcher is not None:
                self._owner.job.watcher.heard(self.peer)
        self._let_go()
        return True

    def wait(self, timeout_s: float | None = None) -> int:
        """See ``Pending.wait``."""
        job = self._owner.job
        job.run_interrupt(time.monotonic())
        if self.done():
            return self._n_bytes
        watcher = job.watcher
        limit_s = self._owner.limit_s(self.peer) if timeout_s is None else timeout_s
        backoff = Backoff()
        limit = Limit(time.monotonic(), limit_s)
        if watcher is not None:
            watcher.enters(self.peer)
        while not self.done():
            now_s = time.monotonic()
            if limit.passed(now_s):
                raise PeerTimeout(self.peer, f"let {limit_s:g} s pass: no {self._what()}")
            job.run_interrupt(now_s)
            if watcher is not None:
                watcher.waits(self.peer)
            backoff.pause(now_s)
        if watcher is not None:
            watcher.heard(self.peer)  # who has taken what was sent is there, too
        return self._n_bytes

    def cancel(self) -> None:
        """See ``Pending.cancel``.

        Raises:
            PeerTimeout: the peer is in the middle of filling the buffer of a receive and does not
                come to an end; the memory must not be used again.
        """
        if self._request is None:
            return
        if self._receives and self.peer not in self._shared.lost:
            self._request.Cancel()
            until_s = time.monotonic() + _CANCEL_S
            backoff = Backoff()
            while not self._shared.settled(self._request):
                now_s = time.monotonic()
                if now_s >= until_s:
                    self._abandon()
                    raise PeerTimeout(
                        self.peer, f"stopped in the middle of a {self._what()} that was cancelled"
                    )
                backoff.pause(now_s)
            self._let_go()
        else:
            self._abandon()

    def __del__(self) -> None:
        if self._request is not None:  # dropped by an exception: MPI may still use the memory
            self._abandon()

    def _what(self) -> str:
        where = f"(stream {self._owner.stream_id.name}, tag {self._tag})"
        if not self._receives:
            return f"receive of {self._n_bytes} bytes by rank {self.peer} {where}"
        return f"message from rank {self.peer} {where}"

    def _translated(self, code: int, status: Any) -> PeerError | FrameError:
        if self._shared.mpi.Get_error_class(code) == self._shared.mpi.ERR_TRUNCATE:
            fits = f"more bytes than the {self._n_bytes} that fit ({self._what()})"
            return FrameError(f"rank {self.peer} sent {fits}")
        return self._shared.peer_error(self.peer, code, self._what())

    def _fail(self, error: PeerError | FrameError) -> None:
        self._error = error
        self._abandon()
        raise error

    def _abandon(self) -> None:
        self._shared.give_up(self._request, (self._memory, self._datatype))
        self._request = self._memory = None

    def _let_go(self) -> None:
        self._request = self._memory = None
        if self._datatype is not None:
            self._datatype.Free()
            self._datatype = None
