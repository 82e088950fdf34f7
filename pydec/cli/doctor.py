"""What this machine and its MPI can do for pydec, with the fix for each thing that is missing.

Whatever may hang, crash or load slowly (MPI, torch, the compiled module) is asked in a process of
its own, so the command always ends and always tells.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydec.cli import findings, probes
from pydec.cli.findings import Finding
from pydec.errors import SetupError
from pydec.launch import srun
from pydec.launch.mpirun import find_mpirun

MIN_PYTHON = (3, 10)
MIN_TORCH = (2, 4)
PROBE_TIMEOUT_S = 60.0
FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

INSTALL_MPI = "pip install 'pydec-train[mpi]', or install Open MPI 5 with your system's packages"
REINSTALL = "pip install --force-reinstall --no-deps pydec-train, or from a source tree: pip install ."

# Ranks of a running job would otherwise pass their identity on to the probes.
_JOB_VARIABLES = re.compile(r"^(OMPI_COMM_|OMPI_MCA_orte|OMPI_MCA_ess|PMIX_|PMI_|PRTE_|HYDRA_|MPI_LOCAL)")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.add_argument("--json", action="store_true", help="print the findings as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Look at everything and print it; 0 if nothing essential is missing, else 1."""
    found = examine()
    ok = all(finding.state != "missing" for finding in found)
    if args.json:
        print(json.dumps({"ok": ok, "findings": [asdict(finding) for finding in found]}, indent=2))
    else:
        print(render(found))
    if not ok:
        missing = ", ".join(finding.name for finding in found if finding.state == "missing")
        print(f"pydec: error: missing: {missing}", file=sys.stderr)
    return 0 if ok else 1


def examine() -> list[Finding]:
    """Every finding about this machine, in the order in which they are printed."""
    mpi = probe(probes.MPI_LIBRARY)
    return [
        check_python(),
        check_compiler(),
        *check_kernels(probe(probes.KERNELS)),
        *check_mpi(mpi),
        check_mpirun(mpi),
        *check_slurm(mpi),
        check_torch(probe(probes.TORCH)),
        check_cores(),
        *findings.host(Path.cwd()),
        *check_data(),
    ]


def render(found: Iterable[Finding]) -> str:
    """The report as text: one line a finding, and its fix, if any, on a line below."""
    marks = {"ok": "ok", "note": "--", "missing": "!!"}
    lines = []
    for finding in found:
        lines.append(f"{marks[finding.state]}  {finding.name:<16} {finding.value}")
        if finding.fix:
            lines.append(f"    {'':<16} fix: {finding.fix}")
    return "\n".join(lines)


def probe(code: str, timeout_s: float = PROBE_TIMEOUT_S) -> dict[str, Any]:
    """What a Python program prints as one JSON object on the last line of its output.

    Runs in a process of its own, without the variables that make it part of a running MPI job. If
    it fails or hangs, the result is ``{"error": reason}``.
    """
    env = {key: value for key, value in os.environ.items() if not _JOB_VARIABLES.match(key)}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=False,
            env=env,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout_s:g} s"}
    lines = done.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        answer = None
    if isinstance(answer, dict):
        return answer
    reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return {"error": f"exit status {done.returncode}: {reason}"}


def check_python() -> Finding:
    """The interpreter and its version."""
    value = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < MIN_PYTHON:
        return Finding("Python", "missing", value, f"use Python {'.'.join(map(str, MIN_PYTHON))} or newer")
    return Finding("Python", "ok", value)


def check_compiler() -> Finding:
    """The C++ compiler; only needed to build pydec from source."""
    for name in filter(None, (os.environ.get("CXX", "").split(" ")[0], "c++", "g++", "clang++")):
        path = shutil.which(name)
        version = _first_line(path, "--version") if path else None
        if path and version:
            return Finding("compiler", "ok", f"{version} at {path}")
    return Finding("compiler", "note", "none", "only to build from source: apt-get install g++ cmake make")


def check_kernels(answer: dict[str, Any]) -> list[Finding]:
    """The compiled module, the instruction sets it was built for, and its CUDA half.

    Args:
        answer: what ``probe`` got from the kernels: ``path``, ``targets``, ``target``, ``cuda``
            and ``cuda_ready``, or ``error``.
    """
    if "error" in answer:
        fix = REINSTALL
        if "PYDEC_SIMD" in answer["error"]:
            fix = "unset PYDEC_SIMD, or set it to a level that this CPU has"
        return [Finding("native code", "missing", answer["error"], fix)]
    forced = os.environ.get("PYDEC_SIMD")
    cuda = Finding("CUDA module", "ok", answer["cuda"])
    if not answer["cuda_ready"]:
        no_device = answer["cuda"].startswith("built with")
        advice = "optional; a GPU, and an NVIDIA driver that knows this CUDA version"
        if not no_device:
            advice = (
                "only for GPUs: put a CUDA toolkit's nvcc on PATH, and install pydec again from its source"
            )
        cuda = Finding("CUDA module", "note", answer["cuda"], advice)
    levels = f"{', '.join(answer['targets'])}; in use: {answer['target']}"
    return [
        Finding("native code", "ok", answer["path"]),
        Finding("SIMD targets", "ok", f"{levels} (PYDEC_SIMD={forced})" if forced else levels),
        cuda,
    ]


def check_mpi(answer: dict[str, Any]) -> list[Finding]:
    """The MPI library that mpi4py loads, its thread level, and whether it survives dead ranks.

    Args:
        answer: what ``probe`` got from mpi4py: ``mpi4py``, ``vendor``, ``version``, ``path``,
            ``thread_level``, ``ulfm`` and ``gpu``, or ``error``.
    """
    if "error" in answer:
        missing_wrapper = "No module named 'mpi4py'" in answer["error"]
        return [
            Finding(
                "MPI library",
                "missing",
                answer["error"],
                "pip install mpi4py" if missing_wrapper else INSTALL_MPI,
            )
        ]
    vendor, version = answer["vendor"], answer["version"]
    where = f" at {answer['path']}" if answer["path"] else ""
    findings = [Finding("MPI library", "ok", f"{vendor} {version}{where}, through mpi4py {answer['mpi4py']}")]
    level = answer["thread_level"]
    if level == "multiple":
        findings.append(Finding("MPI threads", "ok", "MPI_THREAD_MULTIPLE"))
    else:
        value = f"MPI_THREAD_{level.upper()}; communication from a background thread is off"
        findings.append(Finding("MPI threads", "note", value, "use an MPI built with MPI_THREAD_MULTIPLE"))
    if answer["ulfm"] and vendor == "Open MPI":
        findings.append(
            Finding(
                "fault tolerance",
                "ok",
                "ULFM is built in: under `pydec run` survivors go on when a rank dies",
            )
        )
    else:
        why = f"no ULFM in {vendor} {version}" if vendor == "Open MPI" else f"not with {vendor}"
        value = f"{why}: when a rank dies, MPI ends the job, and `pydec run` restarts it"
        findings.append(Finding("fault tolerance", "note", value, INSTALL_MPI))
    taken = "takes GPU memory: models on GPUs send packets from there, sealed ones from host memory"
    if not answer["gpu"]:
        taken = "takes no GPU memory here; packets of models on GPUs go through pinned host memory"
    findings.append(Finding("MPI on GPUs", "ok", taken))
    return [*findings, check_nodes()]


def check_nodes() -> Finding:
    """What follows when a host is lost: mpirun ends the job, and `pydec run` asks who is left."""
    value = "mpirun ends the job; `pydec run --hosts` starts it again on hosts that answer"
    if shutil.which("srun") or shutil.which("ssh"):
        return Finding("lost hosts", "ok", value)
    fix = "for several hosts: apt-get install openssh-client, or name another shell with --launch-agent"
    return Finding("lost hosts", "note", f"{value}; no ssh or srun here to ask them", fix)


def check_mpirun(answer: dict[str, Any]) -> Finding:
    """Whether the mpirun that `pydec run` uses is of the same MPI as mpi4py's, and the shell's too.

    Args:
        answer: as for ``check_mpi``.
    """
    try:
        used = find_mpirun()
    except SetupError as error:
        return Finding("mpirun", "missing", str(error).partition(";")[0], INSTALL_MPI)
    version = _first_line(used, "--version") or "gives no version"
    if "error" in answer:
        return Finding(
            "mpirun", "note", f"{version} at {used}; no MPI library to compare it with", INSTALL_MPI
        )
    if not _same_mpi(version, answer):
        library = f"{answer['vendor']} {answer['version']}"
        right = _mpirun_beside(answer["path"])
        fix = (
            f"put {Path(right).parent} first on PATH"
            if right
            else f"put the mpirun of {library} first on PATH"
        )
        return Finding("mpirun", "missing", f"{version} at {used}, but mpi4py uses {library}", fix)
    shell = shutil.which("mpirun")
    if shell and not os.path.samefile(shell, used):
        other = _first_line(shell, "--version") or "gives no version"
        if not _same_mpi(other, answer):
            value = f"{version} at {used}; but `mpirun` in this shell is {shell} ({other})"
            return Finding("mpirun", "note", value, f"start jobs with `pydec run`, or with {used}")
    return Finding("mpirun", "ok", f"{version} at {used}")


def check_slurm(answer: dict[str, Any]) -> list[Finding]:
    """What srun can start here, and what follows under it when a node is lost; nothing without Slurm.

    Args:
        answer: as for ``check_mpi``.
    """
    if shutil.which("srun") is None:
        return []
    version = _first_line("srun", "--version")
    known = srun.types()
    if version is None or not known:
        return [
            Finding(
                "Slurm", "note", "srun finds no cluster here", "ask on a machine where jobs are submitted"
            )
        ]
    if "pmix" not in known:
        value = f"{version}; srun starts {', '.join(known)}, but no PMIx: `pydec run` uses mpirun"
        return [Finding("Slurm", "note", value, "a Slurm built with PMIx")]
    why, fix = srun.quiet(), REINSTALL
    if answer.get("vendor") != "Open MPI" or not answer.get("ulfm"):
        why, fix = f"{answer.get('vendor', 'no MPI')} without ULFM", INSTALL_MPI
    if why:
        return [Finding("Slurm", "note", f"{version}; a lost node ends the job: {why}", fix)]
    value = f"{version}; `pydec run` in an allocation uses srun, and ranks outlive a lost node (--no-kill)"
    return [Finding("Slurm", "ok", value)]


def check_torch(answer: dict[str, Any]) -> Finding:
    """PyTorch, its version and its devices.

    Args:
        answer: what ``probe`` got from torch: ``version``, ``cuda`` and ``devices``, or ``error``.
    """
    fix = f"pip install 'torch>={'.'.join(map(str, MIN_TORCH))}'"
    if "error" in answer:
        return Finding("PyTorch", "missing", answer["error"], fix)
    devices = f"{answer['devices']} CUDA devices" if answer["devices"] else "CPU only"
    value = f"{answer['version']}, {devices}"
    number = tuple(int(part) for part in re.findall(r"\d+", answer["version"])[:2])
    return (
        Finding("PyTorch", "ok", value) if number >= MIN_TORCH else Finding("PyTorch", "missing", value, fix)
    )


def check_cores() -> Finding:
    """How many ranks this machine has cores for."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else (os.cpu_count() or 1)
    ranks = f"{cores} core{'s' if cores != 1 else ''}; more than {cores} ranks here share cores"
    return Finding("cores", "ok", f"{ranks} (`pydec run` allows it, one thread a rank)")


def check_data(fashion_mnist: Path = FASHION_MNIST_DIR) -> list[Finding]:
    """The data that the built-in tasks train on.

    Args:
        fashion_mnist: folder that should hold the IDX files.
    """
    sources = Path(sysconfig.get_path("stdlib"))
    n_files = sum(1 for _ in sources.glob("*.py"))
    findings = [
        Finding("stdlib-lm", "ok", f"{n_files} modules and packages below {sources}")
        if n_files
        else Finding("stdlib-lm", "note", f"no .py files in {sources}", "install Python with its sources")
    ]
    if any(fashion_mnist.glob("train-images*")):
        return [*findings, Finding("fashion-mnist", "ok", str(fashion_mnist))]
    fix = "apt-get install dataset-fashion-mnist, or pass --data DIR with the four IDX files"
    return [*findings, Finding("fashion-mnist", "note", f"no IDX files in {fashion_mnist}", fix)]


def _first_line(program: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            check=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.strip().splitlines()), None)


def _mpirun_beside(library: str) -> str | None:
    """The mpirun of the installation that ``library`` belongs to."""
    return shutil.which("mpirun", path=str(Path(library).parent.parent / "bin")) if library else None


def _same_mpi(version_line: str, answer: dict[str, Any]) -> bool:
    """Whether what mpirun says of itself fits the library; MPICH's mpirun calls itself HYDRA."""
    line = version_line.lower()
    if answer["vendor"] == "Open MPI":
        return "open mpi" in line and answer["version"] in line
    if answer["vendor"] == "MPICH":
        return "hydra" in line or "mpich" in line
    return True
