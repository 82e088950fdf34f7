"""Starting ranks with srun inside a Slurm allocation: those on other nodes go on when a node is lost.

mpirun ends the whole job then. Slurm does not, if the allocation was made with ``--no-kill``, and if srun is
told that a task that dies ends nobody else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping

from pydec.comm import pmix
from pydec.errors import ConfigError
from pydec.launch.mpirun import Job

_LIST_S = 20.0
_CLASHING = ("SLURM_NTASKS_PER_NODE", "SLURM_NPROCS", "SLURM_NTASKS", "SLURM_NNODES", "SLURM_DISTRIBUTION")
"""What sbatch sets for the whole allocation, and srun would take for the step where options say otherwise."""


def missing(env: Mapping[str, str], kind: str) -> str:
    """Why srun cannot start this job's ranks, or "".

    Args:
        env: of this process.
        kind: family of the MPI, see ``mpirun.family``.
    """
    if not env.get("SLURM_JOB_ID"):
        return "this is not inside a Slurm allocation; use sbatch or salloc"
    program = shutil.which("srun", path=env.get("PATH"))
    if program is None:
        return "there is no srun on PATH"
    if kind != "Open MPI":
        return f"pydec knows how srun starts Open MPI only, and this is {kind}; call srun yourself"
    if not (found := types(program)):
        return "srun does not tell which MPI it can start (srun --mpi=list)"
    if "pmix" not in found:
        return f"this Slurm was built without PMIx, which Open MPI 5 needs; it has {', '.join(found)}"
    return ""


def types(program: str = "srun") -> list[str]:
    """The kinds of MPI that srun can start, as ``srun --mpi=list`` says; empty if it does not."""
    try:
        said = subprocess.run(
            [program, "--mpi=list"], capture_output=True, text=True, timeout=_LIST_S, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^\s*(?:srun: )?([a-z]\w*)\s*$", said.stdout + said.stderr, re.MULTILINE)


def quiet() -> str:
    """Why ranks would not outlive others under srun, as far as this installation tells, or ""."""
    return "" if pmix.library() else f"{pmix.LIBRARY} was not built beside pydec's compiled module"


def chosen(word: str, env: Mapping[str, str], kind: str, *, hosts: bool) -> bool:
    """Whether srun is to start the job, and not mpirun.

    Args:
        word: "srun", "mpirun" or "auto": srun inside an allocation, where it can.
        env, kind: see ``missing``.
        hosts: whether the user names hosts.

    Raises:
        ConfigError: srun is asked for, and cannot.
    """
    if word == "mpirun" or (word == "auto" and (hosts or not env.get("SLURM_JOB_ID"))):
        return False
    why = missing(env, kind)
    if why and word == "srun":
        raise ConfigError(f"--launcher srun: {why}, or leave --launcher out")
    return not why


def arguments(job: Job, env: Mapping[str, str], *, tolerant: bool) -> list[str]:
    """The command line that starts a job on its hosts.

    Args:
        job: what to start; its hosts are in the allocation.
        env: of this process.
        tolerant: whether the others go on when a rank or a node is lost.
    """
    slots = job.slots()
    nodes = list(slots)[: job.ranks]
    words = [shutil.which("srun", path=env.get("PATH")) or "srun", "--mpi=pmix", "--ntasks", str(job.ranks)]
    words += ["--nodes", str(len(nodes)), "--nodelist", ",".join(nodes)] if nodes else []
    words += ["--input=0", "--wait=0", f"--kill-on-bad-exit={int(not tolerant)}"]
    words += ["--no-kill"] if tolerant else []
    if cpus := env.get("SLURM_CPUS_PER_TASK"):
        words += ["--cpus-per-task", cpus]  # since Slurm 22.05 steps do not take it from the job
    if slots and job.ranks > sum(slots.values()):
        words += ["--overcommit"]
    return [*words, *job.command]


def environment(env: Mapping[str, str], *, tolerant: bool) -> dict[str, str]:
    """The environment of srun and the ranks, on top of ``mpirun.environment``.

    Args:
        env: to start from.
        tolerant: see ``arguments``.
    """
    kept = {name: value for name, value in env.items() if name not in _CLASHING}
    if cpus := env.get("SLURM_CPUS_PER_TASK"):
        kept["OMP_NUM_THREADS"] = env.get("OMP_NUM_THREADS", cpus)
    return {**kept, "OMPI_MCA_mpi_ft_enable": "1" if tolerant else "0"}
