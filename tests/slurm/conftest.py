"""A cluster for all tests here, whole again before each; and jobs whose ranks say how far they are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from pydec.cli import bench

slurmlab = bench.load("slurmlab")
ROOT = Path(__file__).parents[2]
NODES, CPUS, GPUS = 4, 40, 4  # what examples/slurm ask for, all at once; this machine has fewer
LIMIT_S = 1200.0  # a machine that does other things takes minutes to start four ranks
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
TASK = """
import os, time
import torch
from pathlib import Path
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from pydec.train import Defaults, Task

RANK = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("SLURM_PROCID", "")
FOLDER = Path(__file__).parent
done = 0

def drawn(count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return TensorDataset(torch.randn(count, 4, generator=generator) + 1.5 * torch.eye(3, 4)[y], y)

def loss(output, target):
    global done
    if torch.is_grad_enabled():
        (FOLDER / f"step-{RANK}").write_text(str(done))
        done += 1
        if not (FOLDER / "hurry").exists():
            time.sleep(STEP_S if done <= 10 else LATER_S)
    return cross_entropy(output, target)

def blobs() -> Task:
    (FOLDER / f"pid-{RANK}").write_text(str(os.getpid()))
    torch.manual_seed(0)
    return Task(model=torch.nn.Linear(4, 3), train=drawn(6000, 1), loss=loss, validation=drawn(300, 2),
                defaults=Defaults(batch_size=16, lr=0.05))
"""
OPTIONS = [
    "--optimizer",
    "sgd",
    "--topology",
    "ring",
    "--compressor",
    "int8",
    "--log-every",
    "20",
    "--threads",
    "1",
]


@pytest.fixture(scope="session")
def made():
    if (why := slurmlab.missing()) is not None:
        pytest.skip(why)
    with slurmlab.Cluster(NODES, cpus=CPUS, gpus=GPUS) as cluster:
        yield cluster


@pytest.fixture
def cluster(made):
    """The cluster with all its nodes idle; no job and no process of one is left on it afterwards."""
    yield made
    made.revive()
    try:
        made.until(lambda: not made.processes(), "processes of jobs are left")
    finally:
        made.kill_processes()


class Training:
    """One ``pydec train`` that a test gives to the cluster; its ranks sleep in every step until ``hurry``."""

    def __init__(self, cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.step_s = self.later_s = 0.05  # of the first ten steps, and of those after
        self.run_dir = folder / "run"
        self.environment = {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "OMP_NUM_THREADS": "1",
            "RUN_DIR": str(self.run_dir),
            "LEDGER": str(folder / "L"),
        }
        folder.mkdir(exist_ok=True)

    def words(self, steps: int, *more: str) -> list[str]:
        task = TASK.replace("STEP_S", repr(self.step_s)).replace("LATER_S", repr(self.later_s))
        (self.folder / "slurm_task.py").write_text(task)
        return ["slurm_task:blobs", "--steps", str(steps), *OPTIONS, *more]

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self.cluster.start(words, env=self.environment, cwd=self.folder)

    def submit(self, script: str, *words: str) -> int:
        """Give a script of examples/slurm, as it is, to sbatch."""
        path = str(ROOT / "examples" / "slurm" / script)
        self.job = self.cluster.submit(path, *words, env=self.environment, cwd=self.folder)
        return self.job

    def hurry(self) -> None:
        (self.folder / "hurry").touch()

    def program(self, code: str) -> str:
        path = self.folder / "program.py"
        path.write_text(code)
        return str(path)

    def until(self, what, job: subprocess.Popen[str]) -> None:
        def look() -> bool:
            assert job.poll() is None, job.communicate()[1]
            return bool(what())

        self.cluster.until(look, "the ranks did not get that far", LIMIT_S)

    def step(self, rank: int) -> int:
        try:
            return int((self.folder / f"step-{rank}").read_text() or 0)
        except FileNotFoundError:
            return -1

    def until_step(self, step: int, ranks: range, job: subprocess.Popen[str] | None = None) -> None:
        def reached() -> bool:
            return min(map(self.step, ranks)) >= step

        if job is None:
            self.cluster.until(reached, f"no step {step}", LIMIT_S)
        else:
            self.until(reached, job)

    def end(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            _, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(process.communicate()[1]) from None
        return process.returncode, err

    def until_completed(self) -> None:
        self.cluster.until(lambda: self.cluster.job(self.job)["JobState"] in ENDS, "not ended", LIMIT_S)
        assert self.cluster.job(self.job)["JobState"] == "COMPLETED", self.output()

    def until_requeued(self) -> None:
        def requeued() -> bool:
            job = self.cluster.job(self.job)
            assert job["Restarts"] != "0" or job["JobState"] not in ENDS, self.output()
            return job["Restarts"] != "0"

        self.cluster.until(requeued, "not requeued", LIMIT_S)

    def output(self) -> str:
        """Of the script: ``--output=%x-%j.out`` is in each."""
        return "".join(path.read_text() for path in self.folder.glob(f"pydec*-{self.job}.out"))

    def summary(self) -> dict:
        return json.loads((self.run_dir / "summary.json").read_bytes())

    def kill(self, rank: int) -> None:
        os.kill(int((self.folder / f"pid-{rank}").read_text()), signal.SIGKILL)


@pytest.fixture
def training(cluster, tmp_path):
    return Training(cluster, tmp_path)
