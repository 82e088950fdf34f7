"""Open MPI's fault tolerance: whether an mpirun has it, and its flags."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_FLAGS = (
    *("--with-ft", "ulfm"),
    # Without it, MPI_Finalize waits for the dead.
    *("--mca", "async_mpi_finalize", "1"),
    *("--prtemca", "state_base_recoverable", "1"),
    # With the default flags, half the recoveries from a death in a large transfer hung.
    *("--mca", "btl_tcp_flags", "send,inplace"),
    # Hierarchical collectives hang on communicators that newcomers were merged into.
    *("--mca", "coll", "^han"),
)


@dataclass(frozen=True)
class Tolerance:
    """A job is to survive its ranks. ``pydec.comm.watch`` finds those that hang, or whose host is cut off.

    Open MPI's own detector (``mpi_ft_detector``) is left off: its thread hung MPI_Finalize between three
    hosts, each time, and without it a rank that computed for 5 s outside MPI counted as dead after 1.6 s.
    """

    def flags(self) -> list[str]:
        """Options of mpirun."""
        return list(_FLAGS)


def missing(mpirun: str, kind: str) -> str:
    """Why this mpirun cannot let the others live when a rank dies, or "".

    Args:
        mpirun: path of mpirun.
        kind: its family, see ``mpirun.family``.
    """
    if kind != "Open MPI":
        return f"{kind} ends the job when a rank dies"
    info = Path(mpirun).with_name("ompi_info")
    try:
        said = subprocess.run(
            [str(info), "--parsable"], capture_output=True, text=True, timeout=60, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return f"{info} does not run, so nobody knows whether this Open MPI has fault tolerance"
    if re.search(r"^options:ft_mpi_support:yes", said, re.MULTILINE):
        return ""
    return "this Open MPI is built without fault tolerance (ULFM), which version 5 has"
