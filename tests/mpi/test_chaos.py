"""Ranks killed and stopped at seeded moments of a real ``pydec run ... train`` with ledger and checkpoints.

At the end: exit status 0, nothing left of the job, a model as good as undisturbed training makes of as many
samples, a ledger that verifies on every survivor, checkpoints that load.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from safetensors.torch import load_file

from pydec.cli import bench
from pydec.cli.main import main
from pydec.comm.local import LocalCluster
from pydec.consensus.file_storage import read_blocks, read_genesis
from pydec.consensus.replay import Replay
from pydec.crypto.hashing import merkle_root
from pydec.peer import Peer
from pydec.train import job
from pydec.train.checkpoint_files import Store, digest_of
from pydec.train.config import TrainConfig
from pydec.train.rundir import RunDir

ROOT = Path(__file__).parents[2]
TASK = """
import os, socket, time
import torch
from pathlib import Path
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from pydec.train import Defaults, Task

RANK = os.environ.get("OMPI_COMM_WORLD_RANK", "")
FOLDER = Path(__file__).parent
done = 0

def drawn(count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 3
    return TensorDataset(torch.randn(count, 4, generator=generator) + 1.5 * torch.eye(3, 4)[y], y)

def loss(output, target):
    global done
    if RANK and torch.is_grad_enabled():
        (FOLDER / f"step-{RANK}").write_text(str(done))
        done += 1
        time.sleep(STEP_S)
    return cross_entropy(output, target)

def blobs() -> Task:
    if RANK:
        (FOLDER / f"step-{RANK}").unlink(missing_ok=True)
        (FOLDER / f"host-{RANK}").write_text(socket.gethostname())
        (FOLDER / f"pid-{RANK}").write_text(str(os.getpid()))
    torch.manual_seed(0)
    return Task(model=torch.nn.Linear(4, 3), train=drawn(6000, 1), loss=loss, validation=drawn(3000, 2),
                defaults=Defaults(batch_size=16, lr=0.05))
"""
OPTIONS = {"optimizer": "sgd", "algorithm": "dpsgd", "topology": "ring", "compressor": "int8"}
MARK = "PYDEC_CHAOS"


def committed(ledger: Path) -> dict[int, bytes]:
    """Roots of the checkpoints that a ledger has certified last, by step."""
    genesis = read_genesis(ledger)
    replay = Replay(genesis)
    with read_blocks(ledger, genesis) as blocks:
        for _, record in blocks.records(1):
            replay.add(record)
    return {record.round: record.root for record in replay.state.run.checkpoints}


class Chaos:
    """One run that is disturbed.

    Args:
        folder: of the run, empty.
        ranks: that start.
        steps: of each rank.
        step_s: that a rank sleeps in each.
    """

    def __init__(self, folder: Path, ranks: int, steps: int, step_s: float = 0.005) -> None:
        self.folder, self.ranks, self.steps = folder, ranks, steps
        self.living = set(range(ranks))
        self.mark = uuid.uuid4().hex
        self.environment = {
            **os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}",
            "OMP_NUM_THREADS": "1", MARK: self.mark,
        }  # fmt: skip
        (folder / "chaos_task.py").write_text(TASK.replace("STEP_S", repr(step_s)))

    def words(self, *options: str) -> list[str]:
        """The command line."""
        given = [word for name, value in OPTIONS.items() for word in (f"--{name}", value)]
        return [
            sys.executable, "-m", "pydec", "run", "-n", str(self.ranks), "--max-restarts", "0", *options,
            "train", "chaos_task:blobs", "--steps", str(self.steps), *given, "--run-dir", "run",
            "--ledger", "L", "--checkpoint-every", str(self.steps // 5), "--keep-last", "3",
            "--log-every", "50", "--threads", "1",
        ]  # fmt: skip

    def start(self, words: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """The job, started."""
        with (self.folder / "said").open("w") as said:
            return subprocess.Popen(
                words, cwd=self.folder, env={**self.environment, **environment}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=said, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        """What the job has written to standard error."""
        return (self.folder / "said").read_text(errors="replace")

    def step(self, rank: int) -> int:
        """Steps that a rank has done."""
        try:
            return int((self.folder / f"step-{rank}").read_text() or 0)
        except FileNotFoundError:
            return 0

    def until(self, step: int, process: subprocess.Popen[bytes]) -> None:
        """Wait until some rank that lives has done so many steps."""
        until_s = time.monotonic() + 900.0
        while max(map(self.step, self.living)) < step:
            assert process.poll() is None, self.said()
            assert time.monotonic() < until_s, {rank: self.step(rank) for rank in self.living}
            time.sleep(0.005)

    def signal(self, rank: int, signum: int) -> None:
        os.kill(int((self.folder / f"pid-{rank}").read_text()), signum)

    def kill(self, rank: int) -> None:
        self.living.remove(rank)
        self.signal(rank, signal.SIGKILL)

    def hang(self, rank: int) -> None:
        self.living.remove(rank)
        self.signal(rank, signal.SIGSTOP)

    def stop(self, rank: int, for_s: float) -> None:
        self.signal(rank, signal.SIGSTOP)
        time.sleep(for_s)
        self.signal(rank, signal.SIGCONT)

    def processes(self) -> list[int]:
        """What runs of this job, on any of the hosts: it has the mark in its environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"{MARK}={self.mark}".encode() in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def end(self) -> None:
        """Kill what is left."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def finish(self, process: subprocess.Popen[bytes], limit_s: float) -> str:
        """Wait for the end and check all of it; returns standard error."""
        try:
            process.wait(timeout=limit_s)
            until_s = time.monotonic() + 10.0
            while (left := self.processes()) and time.monotonic() < until_s:
                time.sleep(0.05)
            assert not left, self.said()
        finally:
            self.end()
        said = self.said()
        assert process.returncode == 0, said
        self._check(self.summary(), said)
        return said

    def summary(self) -> dict:
        return json.loads((self.folder / "run/summary.json").read_text())

    def ledger(self, rank: int) -> Path:
        return self.folder / f"L/rank-{rank}"

    def stores(self) -> list[Store]:
        """The checkpoints on every disk."""
        return [Store(RunDir(self.folder / "run"))]

    def taken(self) -> int:
        """Steps of all ranks together."""
        return sum(self.step(rank) + 1 for rank in range(self.ranks))

    def _check(self, summary: dict, said: str) -> None:
        assert (summary["status"], summary["steps"]) == ("done", self.steps)
        assert summary["ranks_finished"] == len(self.living), said
        assert sorted(row["rank"] for row in summary["lost"]) == sorted(set(range(self.ranks)) - self.living)
        assert {gone["rank"] for gone in summary["ledger"]["evicted"]} == set(range(self.ranks)) - self.living
        for rank in self.living:
            assert main(["ledger", "verify", str(self.ledger(rank))]) == 0
        self._check_checkpoints()
        undisturbed = self._undisturbed()
        assert summary["loss"] == pytest.approx(undisturbed, rel=0.03)

    def _check_checkpoints(self) -> None:
        """Every part loads; the last checkpoint is whole, and the newest that is committed before."""
        parts: dict[int, dict[int, str]] = {}
        members: dict[int, list[int]] = {}
        for store in self.stores():
            for step in store.folders():
                for rank in store.ranks(step):
                    digest = digest_of(store.verify(step, rank))
                    assert parts.setdefault(step, {}).setdefault(rank, digest) == digest
                    assert load_file(store.path(step, rank))
                    members[step] = list(store.members(step))
        whole = [step for step, of in members.items() if set(of) == set(parts[step])]
        assert self.steps in whole
        roots = committed(self.ledger(min(self.living)))
        roots.pop(self.steps, None)  # of the averaged model
        assert not roots or max(roots) in whole
        for step in roots.keys() & set(whole):
            assert merkle_root(bytes.fromhex(parts[step][rank]) for rank in members[step]) == roots[step]

    def _undisturbed(self) -> float:
        """Loss of the averaged model after as many samples as the disturbed run has used, with all ranks."""
        config = TrainConfig("chaos_task:blobs", steps=round(self.taken() / self.ranks), **OPTIONS)

        def train(transport):
            with Peer(transport, signals=False) as peer:
                return job.run(peer, config, str(self.folder / "undisturbed"), quiet=True)

        return LocalCluster(self.ranks).run(train)[0]["loss"]


@pytest.fixture
def chaos(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "chaos_task", raising=False)
    made = []

    def make(*args):
        made.append(Chaos(tmp_path, *args))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("seed", "ranks", "steps", "kills", "stops"),
    [
        (0, 4, 200, 1, 1),
        pytest.param(1, 7, 2000, 3, 4, marks=pytest.mark.slow),
        pytest.param(2, 7, 2000, 2, 6, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_disturbed_ends_as_if_it_were_not(chaos, seed, ranks, steps, kills, stops):
    run, drawn = chaos(ranks, steps), random.Random(seed)
    acts = ["kill"] * kills + ["stop"] * stops
    drawn.shuffle(acts)
    moments = sorted(drawn.sample(range(steps // 20, steps - steps // 5), len(acts)))
    process = run.start(run.words())
    for moment, act in zip(moments, acts, strict=True):
        run.until(moment, process)
        time.sleep(drawn.uniform(0.0, 0.02))  # anywhere in a step
        rank = drawn.choice(sorted(run.living))
        if act == "kill":
            run.kill(rank)
        else:
            run.stop(rank, drawn.uniform(0.2, 1.5))
    run.finish(process, 600.0)


@pytest.mark.slow
@pytest.mark.usefixtures("mpirun")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("hung", [0, 2])
def test_a_rank_that_hangs_is_out_for_all_and_leaves_when_it_wakes(chaos, hung):
    """Training and ledger go on without it; it goes on when the others have taken their last step."""
    run = chaos(4, 150)
    process = run.start([*run.words(), "--grace", "5"])
    run.until(40, process)
    run.hang(hung)
    run.until(run.steps - 1, process)
    run.signal(hung, signal.SIGCONT)
    said = run.finish(process, 600.0)
    assert f"pydec: rank {hung} was silent for" in said
    lost = json.loads((run.folder / "run/summary.json").read_text())["lost"]
    assert lost[0]["reason"].startswith("silent: rank ")


lab = bench.load("netlab.lab")


def on_hosts(run: Chaos, made) -> dict[str, str]:
    """What a job on the hosts of a lab needs in its environment besides what the run gives it."""
    kept = {name: value for name, value in made.environment().items() if name not in run.environment}
    devices = {"OMPI_MCA_btl_tcp_if_include": "eth0", "PRTE_MCA_prte_if_include": "eth0"}
    return {**kept, "PATH": made.environment()["PATH"], **devices}


@pytest.mark.slow
@pytest.mark.usefixtures("mpirun")
@pytest.mark.timeout(400)
@pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing()))
def test_a_link_that_is_cut_for_three_seconds_costs_three_seconds(chaos):
    run = chaos(4, 400)
    with lab.Lab([lab.Link("1gbit")] * 4) as made:
        hosts = ",".join(f"{host}:1" for host in made.hosts)
        words = made.inside(0, run.words("--hosts", hosts, "--launch-agent", str(made.launcher)))
        process = run.start(words, **on_hosts(run, made))
        run.until(100, process)
        made.cut(2)
        time.sleep(3.0)
        made.mend(2)
        run.finish(process, 200.0)
