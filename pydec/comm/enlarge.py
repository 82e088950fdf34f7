"""More ranks for an MPI job that runs: newcomers start beside it, and are merged with it when they are ready.

One rank, the leader, spawns them (``Spawning``), in a thread, while all go on with what they do; they
initialise MPI at once and load what they need. When each has said that it is ready, the ranks come to one
step, rest their streams and call ``enlarge`` together, the newcomers ``join``. What comes out is another
job in which all have ranks: the old ones keep theirs, newcomers get those of the dead and those after the
last. The old job's communicators stay as they are. Until all have agreed that the new job works
(``Trial``), the old ranks can go back to it, as if nothing had happened.

Of MPI's collective operations only those run here that make communicators, and nonblocking ones: Open MPI's
hierarchical ones (coll/han) hang on communicators that newcomers were merged into, because both sides count
the ranks of a host differently; ``pydec run`` leaves them out. Open MPI 5.0 does not survive each death in
the middle of them: some survivors get an error, some wait for ever, and what they leave behind may crash
the process later. So nobody begins before all newcomers have answered that they come; the work is done in a
thread, and the old ranks tell one another by messages of the old job how it went. If one of them fails or a
newcomer ends, all give up at once, and ``Trial.clean`` says that MPI is not to be trusted from then on. A
process that was part of this never finalises MPI, see ``mpi.leave``.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydec.comm.alive import card
from pydec.comm.bell import finish
from pydec.comm.detect import Launch, first_line, launch
from pydec.comm.merging import LOOK_S, Told, bounded
from pydec.comm.mpi import Job, MpiTransport, adopt, current_job, end_abruptly, load
from pydec.comm.spawning import COMING, HERE, NAP_S, READY, READY_S, STAY, TOLD, Spawning, arrived, deaths
from pydec.comm.transport import Stream
from pydec.errors import PeerError, SetupError

MERGE_S = 120.0
_HERE_S = 10.0  # that a word of a newcomer may take to leave
_BRIDGE = 6  # a tag, beside those of ``spawning``
_VOTE_TAG = (1 << 22) + 1_000_001  # of the CONTROL stream, above those of ``stop``
_MOST_RANKS = 1 << 16
_HOST_BYTES = 8
_begun: tuple[Any, bool] | None = None  # what a newcomer has loaded


@dataclass
class Trial:
    """A new job, until all old ranks have agreed that it works.

    Args:
        before: the old job; None on newcomers.
        after: the new one, which this process is now a rank of; None if it was not made.
        number: how many others the old job has tried before.
        members: the old ranks, which go on.
        newcomers: ranks of the others.
        leader: the old rank that has started them.
        failure: why it was not made, or "".
        clean: whether nothing was begun that MPI may not have survived.

    Attributes:
        over: whether it has been decided.
    """

    before: Job | None
    after: Job | None
    number: int = 0
    members: tuple[int, ...] = ()
    newcomers: tuple[int, ...] = ()
    leader: int = 0
    failure: str = ""
    clean: bool = True
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
            return link is not None and self._heard(link, self.leader, _VOTE_TAG)
        old = MpiTransport(self.before, Stream.CONTROL, timeout_s)
        others = [rank for rank in self.members if rank != old.rank and rank not in old.lost()]
        tag = _VOTE_TAG + 1 + self.number  # who gives up early leaves words behind that nobody takes
        self._sends = [old.isend(rank, tag, memoryview(bytes([fine]))) for rank in others]
        heard = [self._heard(old, rank, tag) for rank in others]
        result = fine and all(heard)
        if link is not None and link.rank == self.leader:
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


def enlarge(
    numbers: Sequence[int], dead: frozenset[int], spawning: Spawning | None, leader: int = 0
) -> Trial:
    """The old ranks: take the newcomers in; all that live call it together, with streams at rest.

    Args:
        numbers: that the newcomers get.
        dead: old ranks that are no more, as MPI knows them.
        spawning: of the leader.
        leader: the rank that has started the newcomers.
    """
    job = current_job()
    assert job is not None
    living = [rank for rank in range(job.size) if rank not in dead]
    ranks = [*living, *numbers]
    trial = Trial(job, None, job.enlarged, tuple(living), tuple(numbers), leader)
    told = Told(job, living, leader, job.enlarged)
    job.enlarged += 1
    end_abruptly()
    try:
        if spawning is not None:
            spawning.come(len(living), ranks)
            told.begin(fine=True)
        else:
            told.await_leader()
    except SetupError as error:
        told.begin(fine=False)
        trial.failure = str(error)
        return trial
    trial.clean = False

    def merge(check: Callable[[], None]) -> Job:
        local = job.world.Shrink() if dead else job.world
        local.Set_errhandler(job.mpi.ERRORS_RETURN)
        bridge = job.mpi.COMM_SELF
        if spawning is not None:
            bridge = spawning.bridge.Merge(False)
            bridge.Set_errhandler(job.mpi.ERRORS_RETURN)
        check()
        both = local.Create_intercomm(living.index(leader), bridge, 1, _BRIDGE)
        return _made(job.mpi, job.owns_mpi, _whole(job.mpi, both, ranks, check, newcomer=False), check)

    def look() -> None:
        if spawning is not None and spawning.gone():
            raise SetupError("one of them ended while it was merged with the others")
        told.look()

    until_s = time.monotonic() + MERGE_S
    try:
        after = bounded(merge, look, until_s)
        told.merged(fine=True)
        while not told.all_merged():
            look()
            if time.monotonic() > until_s:
                raise SetupError("it took too long")
            time.sleep(LOOK_S)
    except SetupError as error:
        told.merged(fine=False)
        if spawning is not None:
            spawning.stay()
        trial.failure = str(error)
        return trial
    finally:
        if spawning is not None:
            spawning.close()
    trial.after, trial.clean = after, True
    adopt(after)
    return trial


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
    _say(mpi, parent, HERE, card())
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
    into, until_s = bytearray(4 * _MOST_RANKS), time.monotonic() + 2 * READY_S
    stays = bytearray(1)
    status = mpi.Status()
    try:
        told = parent.Irecv([into, len(into), mpi.BYTE], 0, TOLD)
        stay = parent.Irecv([stays, 1, mpi.BYTE], 0, STAY)
        _say(mpi, parent, READY, bytes([fine]))
        while not told.Get_status(status):
            if time.monotonic() > until_s or deaths(parent):
                raise SetupError("the job that started it says nothing, or has ended")
            time.sleep(NAP_S)
        if status.Get_error():
            raise SetupError("the job that started it has ended")
        told.Test()
        n_bytes = status.Get_count(mpi.BYTE)
        if not n_bytes:
            return None
        old, leader, *ranks = struct.unpack(f"<{n_bytes // 4}I", into[:n_bytes])
        _say(mpi, parent, COMING, b"\1")
    except mpi.Exception as error:
        raise SetupError(f"the job that started it has ended: {first_line(str(error))}") from error

    def merge(check: Callable[[], None]) -> Job:
        bridge = parent.Merge(True)
        bridge.Set_errhandler(mpi.ERRORS_RETURN)
        check()
        both = mpi.COMM_WORLD.Create_intercomm(0, bridge, 0, _BRIDGE)
        return _made(mpi, owns_mpi, _whole(mpi, both, ranks, check, newcomer=True), check)

    def look() -> None:
        if arrived(mpi, stay) or deaths(parent):
            raise SetupError("the job that started it goes on without newcomers")

    after = bounded(merge, look, time.monotonic() + MERGE_S)
    adopt(after)
    return Trial(None, after, members=tuple(ranks[:old]), leader=leader)


def _say(mpi: Any, parent: Any, tag: int, word: bytes) -> None:
    """A newcomer: tell the rank that has started it; that is not to wait for ever."""
    until_s = time.monotonic() + _HERE_S
    with suppress(mpi.Exception):
        said = parent.Isend([word, len(word), mpi.BYTE], 0, tag)
        while not said.Test() and time.monotonic() < until_s:
            time.sleep(NAP_S)


def _whole(mpi: Any, both: Any, ranks: Sequence[int], check: Callable[[], None], *, newcomer: bool) -> Any:
    """One communicator of the two sides, with these ranks; made without a collective operation of MPI's."""
    both.Set_errhandler(mpi.ERRORS_RETURN)
    check()
    merged = both.Merge(newcomer)
    merged.Set_errhandler(mpi.ERRORS_RETURN)
    if list(ranks) == sorted(ranks):
        return merged
    check()
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    whole = merged.Create_group(merged.Get_group().Incl(order), _BRIDGE)
    whole.Set_errhandler(mpi.ERRORS_RETURN)
    return whole


def _made(mpi: Any, owns_mpi: bool, whole: Any, check: Callable[[], None]) -> Job:
    """The job of all ranks of a communicator."""
    host = hashlib.sha256(str(mpi.Get_processor_name()).encode()).digest()[:_HOST_BYTES]
    size, rank = whole.Get_size(), whole.Get_rank()
    hosts = bytearray(size * _HOST_BYTES)
    check()
    finish(whole.Iallgather(host, hosts))
    here = [r for r in range(size) if hosts[r * _HOST_BYTES : (r + 1) * _HOST_BYTES] == host]
    found = launch()
    now = Launch(found.launcher if found else "Open MPI", size, rank, here.index(rank), len(here))
    check()
    return Job(mpi, owns_mpi, whole, now)
