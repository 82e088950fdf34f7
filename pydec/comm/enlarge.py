"""More ranks for an MPI job that runs: newcomers start beside it, and are merged with it when they are ready.

One rank spawns them (``Spawning``), in a thread, while all go on with what they do; they initialise MPI at
once and load what they need. When each has said that it is ready, the ranks come to one step, rest their
streams and call ``enlarge`` together, the newcomers ``join``. What comes out is another job in which all have
ranks: the old ones keep theirs, newcomers get those of the dead and those after the last. The old job's
communicators stay as they are. Until all have agreed that the new job works (``Trial``), the old ranks can go
back to it, as if nothing had happened.

Of MPI's collective operations only those run here that make communicators, and nonblocking ones: Open MPI's
hierarchical ones (coll/han) hang on communicators that newcomers were merged into, because both sides count
the ranks of a host differently; ``pydec run`` leaves them out. All of it runs in a thread that is given up if
it takes too long, as a rank may die in the middle. A process that was part of this never finalises MPI, see
``mpi.leave``.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydec.comm.bell import finish
from pydec.comm.detect import Launch, first_line, launch
from pydec.comm.mpi import Job, MpiTransport, adopt, current_job, end_abruptly, load
from pydec.comm.orders import Newcomers
from pydec.comm.transport import Stream
from pydec.errors import PeerError, SetupError

T = TypeVar("T")

LEADER = 0
"""The rank that starts newcomers: orders come in at its standard input."""
READY_S = 150.0  # for newcomers to start and load what they need
MERGE_S = 120.0
_HERE_S = 10.0  # that the first word of a newcomer may take to leave
_HERE, _READY, _TOLD, _BRIDGE = 1, 2, 3, 4  # tags
_VOTE_TAG = (1 << 22) + 1_000_001  # of the CONTROL stream, above those of ``stop``
_NAP_S = 2e-3
_MOST_RANKS = 1 << 16
_HOST_BYTES = 8
_FORWARDED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "OMP_NUM_THREADS")
_begun: tuple[Any, bool] | None = None  # what a newcomer has loaded


class Spawning:
    """Newcomers that this rank starts, from its construction on; they wait to be told to come, or not to.

    Args:
        job: this rank's.
        asked: who.

    Attributes:
        ready: whether all wait.
        failure: why they will not, or "".
    """

    def __init__(self, job: Job, asked: Newcomers) -> None:
        self.job, self.asked = job, asked
        self.ready, self.failure = False, ""
        self.bridge: Any = None
        self._told = False
        self._receives: list[Any] = []
        end_abruptly()
        threading.Thread(target=self._run, name="pydec-spawn", daemon=True).start()

    def tell(self, ranks: Sequence[int] = ()) -> None:
        """Tell all newcomers, once, to join now, or to end.

        Args:
            ranks: in the new job, of the old ranks and then of the newcomers; () is for the end.
        """
        if self.bridge is None or self._told:
            return
        self._told = True
        mpi, word = self.job.mpi, struct.pack(f"<{len(ranks)}I", *ranks)
        for place in range(len(self.asked.numbers)):
            with suppress(mpi.Exception):  # who is dead needs no word
                request = self.bridge.Isend([word, len(word), mpi.BYTE], place, _TOLD)
                self.job.requests.give_up(request, word)

    def _run(self) -> None:
        try:
            self.bridge = self._spawned()
            self._await()
        except self.job.mpi.Exception as error:
            self.failure = f"MPI does not start them: {first_line(str(error))}"
        except Exception as error:
            self.failure = f"they did not start: {error}"
        if self.failure:
            self.tell()

    def _spawned(self) -> Any:
        mpi, asked = self.job.mpi, self.asked
        info = mpi.Info.Create()
        info.Set("wdir", os.getcwd())
        info.Set("bind_to", "none")
        words = list(asked.command)
        if asked.hosts:
            info.Set("add-host", asked.hosts)
            info.Set("host", asked.hosts)
            words = ["env", *(f"{k}={os.environ[k]}" for k in _FORWARDED if k in os.environ), *words]
        if asked.crowd:
            info.Set("map_by", ":OVERSUBSCRIBE")
        comm = mpi.COMM_SELF.Spawn(words[0], words[1:], maxprocs=len(asked.numbers), info=info)
        comm.Set_errhandler(mpi.ERRORS_RETURN)
        return comm

    def _await(self) -> None:
        until_s = time.monotonic() + READY_S
        self._words(_HERE, until_s)
        if b"\0" in self._words(_READY, until_s):
            raise SetupError("one of them cannot train, and says why in its output")
        self.ready = True

    def _words(self, tag: int, until_s: float) -> list[bytearray]:
        """One byte of each newcomer."""
        mpi, buffers = self.job.mpi, [bytearray(1) for _ in self.asked.numbers]
        waiting = [self.bridge.Irecv([into, 1, mpi.BYTE], place, tag) for place, into in enumerate(buffers)]
        self._receives += [waiting, buffers]  # MPI may use them even after a failure
        while waiting:
            if time.monotonic() > until_s:
                raise SetupError(f"{len(waiting)} are not ready after {READY_S:g} s")
            if _deaths(self.bridge):
                raise SetupError("one of them ended before it was ready")
            waiting = [request for request in waiting if not self._arrived(request)]
            time.sleep(_NAP_S)
        return buffers

    def _arrived(self, request: Any) -> bool:
        status = self.job.mpi.Status()
        if not request.Get_status(status):
            return False
        if status.Get_error():
            raise SetupError("one of them ended before it was ready")
        request.Test()
        return True


@dataclass
class Trial:
    """A new job, until all old ranks have agreed that it works.

    Args:
        before: the old job; None on newcomers.
        after: the new one, which this process is now a rank of; None if it was not made.
        number: how many others the old job has tried before.
        members: the old ranks, which go on.
        newcomers: ranks of the others.
        failure: why it was not made, or "".

    Attributes:
        over: whether it has been decided.
    """

    before: Job | None
    after: Job | None
    number: int = 0
    members: tuple[int, ...] = ()
    newcomers: tuple[int, ...] = ()
    failure: str = ""
    over: bool = field(default=False, init=False)

    def vote(self, *, fine: bool, timeout_s: float) -> bool:
        """Whether the new job goes on: on the old ranks if all say so, on newcomers if the leader does.

        Every rank calls it once, when it has all it needs, or has failed.

        Args:
            fine: what this rank says.
            timeout_s: how long to wait for each of the others.
        """
        self.over = True
        link = MpiTransport(self.after, Stream.CONTROL, timeout_s) if self.after is not None else None
        if self.before is None:
            return link is not None and self._heard(link, LEADER, _VOTE_TAG)
        old = MpiTransport(self.before, Stream.CONTROL, timeout_s)
        others = [rank for rank in self.members if rank != old.rank and rank not in old.lost()]
        tag = _VOTE_TAG + 1 + self.number  # who gives up early leaves words behind that nobody takes
        self._sends = [old.isend(rank, tag, memoryview(bytes([fine]))) for rank in others]
        heard = [self._heard(old, rank, tag) for rank in others]
        result = fine and all(heard)
        if link is not None and link.rank == LEADER:
            word = memoryview(bytes([result]))
            self._sends += [link.isend(rank, _VOTE_TAG, word) for rank in self.newcomers]
        return result

    def back(self) -> None:
        """The old ranks: be the old job again."""
        assert self.before is not None
        adopt(self.before)

    def _heard(self, link: MpiTransport, peer: int, tag: int) -> bool:
        into = bytearray(1)
        pending = link.irecv(peer, tag, memoryview(into))
        try:
            pending.wait()
        except PeerError:
            with suppress(PeerError):
                pending.cancel()
            return False
        return into == b"\1"


def failed(job: Job) -> frozenset[int]:
    """Ranks that MPI itself knows to be dead; others count as dead only for pydec, and may wake."""
    group, ours = job.world.Get_failed(), job.world.Get_group()
    ranks = group.Translate_ranks(range(group.Get_size()), ours) if group.Get_size() else ()
    return frozenset(ranks)


def _deaths(comm: Any) -> int:
    """How many ranks of a communicator MPI knows to be dead; only who asks is told, and its receives end."""
    group = comm.Get_failed()
    count: int = group.Get_size()
    group.Free()
    return count


def enlarge(numbers: Sequence[int], dead: frozenset[int], spawning: Spawning | None) -> Trial:
    """The old ranks: take the newcomers in; all that live call it together, with streams at rest.

    Args:
        numbers: that the newcomers get.
        dead: old ranks that are no more, as MPI knows them.
        spawning: of ``LEADER``.
    """
    job = current_job()
    assert job is not None
    living = [rank for rank in range(job.size) if rank not in dead]
    number, job.enlarged = job.enlarged, job.enlarged + 1
    end_abruptly()

    def merge() -> Job:
        local = job.world.Shrink() if dead else job.world
        local.Set_errhandler(job.mpi.ERRORS_RETURN)
        bridge, ranks = job.mpi.COMM_SELF, [*living, *numbers]
        if spawning is not None:
            spawning.tell(ranks)
            bridge = spawning.bridge.Merge(False)
            bridge.Set_errhandler(job.mpi.ERRORS_RETURN)
        both = local.Create_intercomm(living.index(LEADER), bridge, 1, _BRIDGE)
        return _made(job.mpi, job.owns_mpi, _whole(job.mpi, both, ranks, newcomer=False))

    try:
        after = _bounded(merge)
    except SetupError as error:
        return Trial(job, None, number, tuple(living), tuple(numbers), str(error))
    adopt(after)
    return Trial(job, after, number, tuple(living), tuple(numbers))


def begin() -> tuple[Any, bool]:
    """A newcomer: initialise MPI and say so, at once: from then on the one that started it sees if it dies.

    Returns:
        See ``mpi.load``.

    Raises:
        SetupError: nobody has started it.
    """
    global _begun
    if _begun is not None:
        return _begun
    mpi, _ = _begun = load()
    end_abruptly()
    parent = mpi.Comm.Get_parent()
    if parent == mpi.COMM_NULL:
        raise SetupError("pydec train --joins is for processes that a running job has started")
    for comm in (mpi.COMM_WORLD, mpi.COMM_SELF, parent):
        comm.Set_errhandler(mpi.ERRORS_RETURN)
    word, until_s = b"\1", time.monotonic() + _HERE_S
    with suppress(mpi.Exception):
        said = parent.Isend([word, 1, mpi.BYTE], 0, _HERE)
        while not said.Test() and time.monotonic() < until_s:
            time.sleep(_NAP_S)
    return _begun


def join(*, fine: bool) -> Trial | None:
    """A newcomer: say that this process is ready, and become a rank of the job that started it.

    Args:
        fine: whether it is; else nobody is to wait for it.

    Returns:
        None if it is not to come.

    Raises:
        SetupError: it did not work, or the job has ended.
    """
    mpi, owns_mpi = begin()
    parent = mpi.Comm.Get_parent()
    into, ready, until_s = bytearray(4 * _MOST_RANKS), bytes([fine]), time.monotonic() + 2 * READY_S
    status = mpi.Status()
    try:
        told = parent.Irecv([into, len(into), mpi.BYTE], 0, _TOLD)
        said = parent.Isend([ready, 1, mpi.BYTE], 0, _READY)
        while not told.Get_status(status):
            if time.monotonic() > until_s or _deaths(parent):
                raise SetupError("the job that started it says nothing, or has ended")
            time.sleep(_NAP_S)
        if status.Get_error():
            raise SetupError("the job that started it has ended")
        told.Test()
        said.Test()
    except mpi.Exception as error:
        raise SetupError(f"the job that started it has ended: {first_line(str(error))}") from error
    ranks = struct.unpack(f"<{status.Get_count(mpi.BYTE) // 4}I", into[: status.Get_count(mpi.BYTE)])
    if not ranks:
        return None

    def merge() -> Job:
        bridge = parent.Merge(True)
        bridge.Set_errhandler(mpi.ERRORS_RETURN)
        both = mpi.COMM_WORLD.Create_intercomm(0, bridge, 0, _BRIDGE)
        return _made(mpi, owns_mpi, _whole(mpi, both, ranks, newcomer=True))

    after = _bounded(merge)
    adopt(after)
    return Trial(None, after)


def _whole(mpi: Any, both: Any, ranks: Sequence[int], *, newcomer: bool) -> Any:
    """One communicator of the two sides, with these ranks; made without a collective operation of MPI's."""
    both.Set_errhandler(mpi.ERRORS_RETURN)
    merged = both.Merge(newcomer)
    merged.Set_errhandler(mpi.ERRORS_RETURN)
    if list(ranks) == sorted(ranks):
        return merged
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    whole = merged.Create_group(merged.Get_group().Incl(order), _BRIDGE)
    whole.Set_errhandler(mpi.ERRORS_RETURN)
    return whole


def _made(mpi: Any, owns_mpi: bool, whole: Any) -> Job:
    """The job of all ranks of a communicator."""
    host = hashlib.sha256(str(mpi.Get_processor_name()).encode()).digest()[:_HOST_BYTES]
    size, rank = whole.Get_size(), whole.Get_rank()
    hosts = bytearray(size * _HOST_BYTES)
    finish(whole.Iallgather(host, hosts))
    here = [r for r in range(size) if hosts[r * _HOST_BYTES : (r + 1) * _HOST_BYTES] == host]
    found = launch()
    now = Launch(found.launcher if found else "Open MPI", size, rank, here.index(rank), len(here))
    return Job(mpi, owns_mpi, whole, now)


def _bounded(work: Callable[[], T]) -> T:
    """Do it in a thread, which is left alone if it does not come back."""
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="pydec-merge", daemon=True)
    thread.start()
    thread.join(MERGE_S)
    if errors:
        raise SetupError(f"the ranks could not be merged: {first_line(str(errors[0]))}") from errors[0]
    if not results:
        raise SetupError(f"the ranks were not merged within {MERGE_S:g} s")
    return results[0]
