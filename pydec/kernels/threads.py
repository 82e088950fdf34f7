"""Threads that the kernels share large vectors with."""

from __future__ import annotations

from pydec.errors import ConfigError
from pydec.kernels._library import native


def num_threads() -> int:
    """Threads that a kernel uses at most, the calling one included.

    At first the CPUs that this process may run on, divided by the ranks that its launcher says it started
    on this node (Open MPI, MPICH, Intel MPI, MVAPICH, Cray and Slurm tell it), and at least 1. A rank that is
    bound to cores of its own may want all of them: ``set_num_threads(len(os.sched_getaffinity(0)))``.

    Helpers are started by the first call that wants them, sleep between calls and take chunks as they are
    free. Calls that touch less than 1 MiB stay on the calling thread, and so does a call that finds the
    helpers busy with another thread's call. A forked child starts helpers of its own.
    """
    return native.num_threads()


def set_num_threads(n: int) -> None:
    """Use at most ``n`` threads from now on, in the whole process; no number changes a result.

    Raises:
        ConfigError: if ``n`` is not in 1..1024.
    """
    if not native.set_num_threads(n):
        raise ConfigError(f"num_threads must be in 1..{native.max_threads}, got {n}")
