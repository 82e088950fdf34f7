"""How a job fails: the first failing rank prints its traceback, and every rank ends.

Where the MPI lets the others live when a rank dies, a rank that fails by itself prints its reason, tells the
others, and dies alone.

A failure spreads: a rank that raises leaves its neighbours with lost peers and passed deadlines.
Those secondary errors wait before they are printed, so that what is printed is the cause, once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from pydec.comm.stop import last_words
from pydec.comm.transport import Stream
from pydec.comm.words import say_out
from pydec.errors import (
    ConfigError,
    CutOff,
    Evicted,
    LeftOut,
    MismatchError,
    PeerError,
    PeerLost,
    PeerTimeout,
    PydecError,
    Stopped,
)

if TYPE_CHECKING:
    from pydec.comm.mpi import Job

_GRACE_S = 2.0  # how long a secondary error waits for the rank that caused it to end the job
_ALIKE_S = 0.5  # the same where the others may live on: errors that all have come within one step
_LINGER_S = 0.2  # how long last words take to leave
_SETTLE_S = 0.1  # how long a failing rank listens for others that fail at the same moment


def is_secondary(error: BaseException) -> bool:
    """Whether ``error`` came from another rank's absence, itself or in what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, (PeerLost, PeerTimeout)):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def exit_status(error: BaseException) -> int:
    """The exit status that an error stands for: 2 wrong arguments, 130 or 143 stopped, 1 all else."""
    if isinstance(error, ConfigError):
        return 2
    if isinstance(error, Stopped):
        return 128 + error.signum
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return 1


def describe(error: BaseException, rank: int | None) -> str:
    """What to print about ``error``: one last line that says all, and a traceback where it helps.

    pydec's own errors explain themselves, except that a peer's fault needs the place where it was
    met, as a program's own errors do.

    Args:
        error: the error.
        rank: rank that raised it, in front of every line; None where there is only one.
    """
    who = "" if rank is None else f"rank {rank}: "
    explains_itself = isinstance(error, PydecError) and not isinstance(error, PeerError)
    subject = str(error) if explains_itself else f"{type(error).__name__}: {error}".rstrip(": ")
    lines: list[str] = []
    if not explains_itself:
        trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        lines = [who + line for line in trace.splitlines()]
    first, *rest = subject.splitlines() or [""]
    last = f"pydec: error: {who}{first}" + "".join(f" {line.strip()}" for line in rest)
    return "\n".join([*lines, last]) + "\n"


def fail_job(error: BaseException) -> NoReturn:
    """Print ``error`` unless another rank prints its cause, and end every rank of the job.

    Under an MPI that lets the others live (``mpirun --with-ft ulfm``) only this rank ends, unless the error
    is one that others have, too: wrong arguments, a difference between ranks, a stop, a lost rank that
    cannot be done without, or an error that all living ranks raise at the same moment. It ends by SIGKILL,
    the one way that no launcher takes for a failure of the job. A rank that the others go on without,
    ``Evicted`` or ``LeftOut``, says so in one line and ends with status 0.

    The last line on standard error reads ``pydec: error: rank 2: ValueError: ...``. Errors that
    explain themselves print that line alone.

    Args:
        error: what ended this rank's program; decides the exit status, see ``exit_status``.
    """
    mpi = sys.modules.get("pydec.comm.mpi")  # loaded if this process speaks MPI
    job: Job | None = mpi.current_job() if mpi is not None else None
    if job is not None and job.size > 1 and isinstance(error, (Evicted, LeftOut)):
        _leave(job, error)
    if job is not None and job.size > 1 and isinstance(error, CutOff):
        say_out(job.rank)  # nobody is to wait for it, and its end is no success
        _die_alone(job, error)
    status = exit_status(error)
    if job is not None and _others_go_on(job, error):
        _die_alone(job, error)
    try:
        if job is None or job.size == 1 or _may_speak(job, error):
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(2, describe(error, None if job is None or job.size == 1 else job.rank).encode())
    finally:
        if mpi is not None and job is not None:
            mpi.abort(status)
        os._exit(status)


def _others_go_on(job: Job, error: BaseException) -> bool:
    """Whether some rank lives on that does not fail at the same moment."""
    shared = isinstance(error, (ConfigError, MismatchError, Stopped)) or not isinstance(error, Exception)
    if job.size == 1 or not job.requests.tolerant or shared or is_secondary(error):
        return False
    failing = job.posts.fail(_ALIKE_S)
    out = failing | job.requests.lost | job.requests.left.keys() | {job.rank}
    return len(out) < job.size


def _leave(job: Job, error: Evicted | LeftOut) -> NoReturn:
    """End this rank well: the others go on, and do not reckon with it."""
    try:
        sys.stdout.flush()
        os.write(2, f"pydec: {error}; it leaves\n".encode())
        say_out(job.rank)
        time.sleep(_LINGER_S)
    finally:
        os._exit(0)


def _die_alone(job: Job, error: BaseException) -> NoReturn:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(2, describe(error, job.rank).encode())
        text = f"{type(error).__name__}: {error}"
        last_words((job.sealed or job.transports[Stream.GOSSIP]).stream(Stream.CONTROL), text)
        time.sleep(_LINGER_S)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)


def install_excepthook() -> None:
    """Let an exception that nobody catches on this rank end the whole job."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if previous is not sys.__excepthook__:
            previous(kind, error, trace)
        fail_job(error)

    sys.excepthook = hook


def _may_speak(job: Job, error: BaseException) -> bool:
    """Whether this rank is the one to print; waits where another one may be.

    The rank that speaks ends this process meanwhile, except under an MPI that lets the others live.
    """
    if is_secondary(error):
        time.sleep(_GRACE_S)
    if job.posts.first_to_fail(_SETTLE_S):
        return True
    time.sleep(_GRACE_S)
    return False
