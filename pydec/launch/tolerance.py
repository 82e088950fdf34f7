"""Open MPI's fault tolerance: whether an mpirun has it, and its flags."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pydec.errors import ConfigError

_FLAGS = (
    *("--with-ft", "ulfm"),
    # Without it, MPI_Finalize waits for the dead.
    *("--mca", "async_mpi_finalize", "1"),
    *("--prtemca", "state_base_recoverable", "1"),
    # With the default flags, half the recoveries from a death in a large transfer hung.
    *("--mca", "btl_tcp_flags", "send,inplace"),
)


@dataclass(frozen=True)
class Tolerance:
    """What a job is to survive.

    Args:
        silence_s: seconds without a sign of life after which a rank or host counts as dead; 0 leaves that to
            closed connections, which a stopped process and a cut cable do not close.

    Raises:
        ConfigError: a time below half a second, in which a busy machine may be silent for no reason.
    """

    silence_s: float = 0.0

    def __post_init__(self) -> None:
        if self.silence_s and not self.silence_s >= 0.5:
            raise ConfigError(
                f"--silence must be 0 (off) or at least 0.5 seconds, got {self.silence_s:g}; machines that "
                "share cores are silent for that long without being dead"
            )

    def flags(self) -> list[str]:
        """Options of mpirun.

        Signs of life come from a thread of MPI's own: without it, a rank that computed for 5 s outside MPI
        was taken for dead after 1.6 s, and ended itself when it came back; with it, it was not. But with it
        MPI_Finalize hung between three hosts, each time; so it is off unless asked for, and pydec's own ranks
        then wait for MPI_Finalize a second only.
        """
        if not self.silence_s:
            return list(_FLAGS)
        values = {
            "mpi_ft_detector": "true",
            "mpi_ft_detector_thread": "true",
            "mpi_ft_detector_period": f"{self.silence_s / 5:g}",
            "mpi_ft_detector_timeout": f"{self.silence_s:g}",
            "mpi_ft_propagator_with_rbcast": "true",
        }
        return [*_FLAGS, *(word for name, value in values.items() for word in ("--mca", name, value))]


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
