"""A host dies under mpirun: ``pydec run`` starts the ranks again on the others, as torchrun does its workers.

Hosts are network namespaces of this machine (``netlab``), one rank each. The time runs from the death of all
that runs on one host to the first step that the others have finished after it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from .harness import Options, Row
from .netlab.lab import Lab, Link, missing
from .recover_peers import moments

HOSTS = 4
LOSSES = 3
ELEMENTS = 10_000_000
MORE_S = 5.0  # that a new start may take beside that of mpirun
_EVERY = 20  # steps between checkpoints
_LIMIT_S = 180.0
_NAME = "host lost under mpirun to the next step, 40 MB"
_TORCHRUN = {"defaults": "", "last_call_timeout=1": "last_call_timeout=1"}
_START = "from pydec.comm.mpi import open_mpi; open_mpi().close()"


def rows(options: Options) -> Iterator[Row]:
    """Ours beside the start of mpirun, and beside torchrun."""
    losses = 1 if options.quick else min(options.rounds or LOSSES, LOSSES)
    elements = 1000 if options.quick else ELEMENTS
    params = {"hosts": HOSTS, "losses": losses, "elements": elements, "link": "1gbit"}
    if why := missing():
        yield Row("recover", _NAME, params, 0.0, "losses", f"not measured: {why}")
        return
    ours = [lost(_pydec(elements), 2) for _ in range(losses)]
    mine = statistics.median(ours)
    target_s = _started() + MORE_S
    params["worst_s"] = max(ours)
    yield Row("recover", _NAME, params, mine, "s", "start of mpirun + 5 s", target_s, target_s / mine)
    for label, conf in _TORCHRUN.items():
        peer = f"torchrun elastic, {label}"
        try:
            theirs = statistics.median(lost(_torchrun(elements, conf), 1) for _ in range(losses))
        except RuntimeError as error:
            yield Row(
                "recover", _NAME, params, mine, "s", f"{peer}: {str(error).splitlines()[0].rstrip(':')}"
            )
        else:
            yield Row("recover", _NAME, params, mine, "s", peer, theirs, theirs / mine)


Launch = Callable[[Lab, Path, IO[bytes]], list[subprocess.Popen[bytes]]]
"""Starts a job on a lab; its workers append to moments-PROCESS in the folder."""


def lost(launch: Launch, line: int) -> float:
    """Start a job, take its last host away, and wait for the first step after that.

    Args:
        launch: of the job.
        line: of a worker's moments that means its first step is done.

    Returns:
        Seconds until all workers that go on have done it.

    Raises:
        RuntimeError: it did not come that far in time.
    """
    with (
        Lab([Link("1gbit")] * HOSTS) as made,
        tempfile.TemporaryDirectory() as name,
        (Path(name) / "said").open("wb") as said,
    ):
        folder = Path(name)
        jobs = launch(made, folder, said)
        try:
            _until(lambda: _ready(folder), folder)
            before = set(_workers(folder))
            made.lose(HOSTS - 1)
            moment_s = time.monotonic()

            def after() -> list[float]:
                fresh = [moments(path) for path in set(_workers(folder)) - before]
                return [found[line - 1][0] for found in fresh if len(found) >= line]

            _until(lambda: len(after()) >= HOSTS - 1, folder)
            return max(after()) - moment_s
        finally:
            made.kill()
            for job in jobs:
                job.wait()


def _ready(folder: Path) -> bool:
    """Whether every worker has done some steps, and with pydec the first checkpoint is there."""
    workers = _workers(folder)
    if len(workers) < HOSTS or min(len(moments(path)) for path in workers) < 2 * _EVERY:
        return False
    run = folder / "run"
    return not run.exists() or any(
        len(list(step.glob("rank-*.json"))) == HOSTS for step in run.glob("checkpoints/step-*")
    )


def _workers(folder: Path) -> list[Path]:
    return sorted(folder.glob("moments-*"))


def _pydec(elements: int) -> Launch:
    def launch(made: Lab, folder: Path, said: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        task = f"recover_task:vector:elements={elements},folder={folder}"
        words = f"train {task} --steps 1000000 --compressor none --threads 1 --quiet --log-every 100000"
        words += f" --eval-every 1000000 --checkpoint-every {_EVERY} --run-dir {folder}/run"
        command = made.inside(0, [*_run(made), *words.split()])
        return [_popen(command, folder, said, _environment(made))]

    return launch


def _torchrun(elements: int, conf: str) -> Launch:
    def launch(made: Lab, folder: Path, said: IO[bytes]) -> list[subprocess.Popen[bytes]]:
        program = str(Path(__file__).with_name("recover_elastic.py"))
        words = ["-m", "torch.distributed.run", "--nnodes", f"{HOSTS - 1}:{HOSTS}", "--nproc-per-node", "1"]
        words += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"{made.address(0)}:29400", "--rdzv-id", "x"]
        words += ["--max-restarts", "10", *(["--rdzv-conf", conf] if conf else [])]
        command = [sys.executable, *words, program, str(elements), str(folder)]
        return [_popen(made.inside(host, command), folder, said, _environment(made)) for host in range(HOSTS)]

    return launch


def _started() -> float:
    """Seconds that as many ranks as go on take to start and to end, on their hosts."""
    with Lab([Link("1gbit")] * (HOSTS - 1)) as made, tempfile.TemporaryFile() as said:
        began_s = time.monotonic()
        command = made.inside(0, [*_run(made), sys.executable, "-c", _START])
        with _popen(command, Path(), said, _environment(made)) as job:
            if job.wait(_LIMIT_S):
                raise RuntimeError("ranks that do nothing did not start on the hosts")
        return time.monotonic() - began_s


def _run(made: Lab) -> list[str]:
    hosts = ",".join(f"{host}:1" for host in made.hosts)
    words = ["-n", str(len(made.hosts)), "--hosts", hosts, "--launch-agent", str(made.launcher)]
    return [sys.executable, "-m", "pydec", "run", *words]


def _environment(made: Lab) -> dict[str, str]:
    devices = {"OMPI_MCA_btl_tcp_if_include": "eth0", "PRTE_MCA_prte_if_include": "eth0"}
    return {**made.environment(), **devices, "PYTHONPATH": str(Path(__file__).parent)}


def _popen(
    command: Sequence[str], folder: Path, said: IO[bytes], env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=said,
        stderr=said,
        env=env,
        cwd=folder,
        start_new_session=True,
    )


def _until(what: Callable[[], bool], folder: Path) -> None:
    until_s = time.monotonic() + _LIMIT_S
    while not what():
        if time.monotonic() > until_s:
            words = (folder / "said").read_bytes()[-1500:].decode(errors="replace")
            raise RuntimeError(f"the job did not get that far within {_LIMIT_S:g} s:\n{words}")
        time.sleep(0.02)
