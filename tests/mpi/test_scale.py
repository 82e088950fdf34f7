"""pydec scale under a real mpirun: two ranks, then three, then one, of one run that ends as it should.

And ``pydec run --replace``: a rank is killed, and all go on with another in its place.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from pydec.cli.main import main
from pydec.consensus.file_storage import create
from pydec.consensus.node import founders
from pydec.crypto.signing import SigningKey
from pydec.launch.supervise import sessions

ROOT = Path(__file__).parents[2]
TASK = """
import time
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from pydec.train import Defaults, Task

def loss(output, target):
    time.sleep(0.02)
    return cross_entropy(output, target)

def blobs() -> Task:
    random = torch.Generator().manual_seed(1)
    y = torch.arange(240) % 3
    x = torch.randn(240, 4, generator=random) + 2.0 * torch.eye(3, 4)[y]
    data = TensorDataset(x, y)
    return Task(model=torch.nn.Linear(4, 3), train=data, loss=loss, validation=data,
                defaults=Defaults(batch_size=8))
"""


def losses(run: Path) -> list[float]:
    lines = (run / "metrics/rank-0.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if row["kind"] == "step"]


def pauses(run: Path, rank: int = 0) -> list[float]:
    rows = map(json.loads, (run / f"metrics/rank-{rank}.jsonl").read_text().splitlines())
    return [row["pause_s"] for row in rows if "pause_s" in row]


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended


def granted(job: subprocess.Popen[str], run: Path, count: str, *more: str) -> int:
    """Ask until the job has taken a step, and is not refused for that; the exit status of the last ask."""
    until_s = time.monotonic() + 120.0
    while (status := main(["scale", count, *more, "--run-dir", str(run)])) == 2:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.2)
    return status


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts a job that trains in ``run``, and ends it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "tiny.py").write_text(textwrap.dedent(TASK))
    jobs = []

    def start(ranks: str, more: str = "", task: str = "blobs") -> subprocess.Popen[str]:
        words = f"run {ranks} train tiny:{task} --steps 300 --lr 0.05 --seed 3 --threads 1 --quiet {more}"
        job = subprocess.Popen(
            [sys.executable, "-m", "pydec", *words.split(), "--run-dir", "run"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        jobs.append(job)
        return job

    yield start
    for job in jobs:
        job.kill()
        job.wait()


@pytest.mark.slow  # three jobs, half a minute
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
@pytest.mark.parametrize("ledger", [False, True])
def test_two_ranks_then_three_then_one(tmp_path, started, capfd, ledger):
    run = tmp_path / "run"
    job = started("-n 2", "--ledger ledger" if ledger else "")
    assert granted(job, run, "+1") == 0
    assert granted(job, run, "=1") == 0
    _, err = job.communicate(timeout=200)
    assert job.returncode == 0, err
    shown = capfd.readouterr().out
    assert "2 -> 3 ranks, continuing from step " in shown
    assert "3 -> 1 ranks: first step " in shown
    assert [line for line in err.splitlines() if "continuing" in line] == [
        line for line in err.splitlines() if line.startswith("pydec: ") and "from step" in line
    ]
    summary = json.loads((run / "summary.json").read_text())
    assert [(row["from"], row["to"]) for row in summary["scaled"]] == [(2, 3), (3, 1)]
    assert 0 < summary["scaled"][0]["step"] < summary["scaled"][1]["step"] < 300
    assert all(row["time_s"] > 0 for row in summary["scaled"])
    assert [row["restarted"] for row in summary["scaled"]] == [False, True]
    assert len(pauses(run)) == 1
    assert (summary["status"], summary["steps"], summary["ranks_started"]) == ("done", 300, 1)
    seen = losses(run)
    assert len(seen) == 300
    assert sum(seen[-30:]) < 0.7 * sum(seen[:30])
    assert not [pid for pid in sessions() if str(tmp_path).encode() in command_line(pid)]
    assert not list(tmp_path.glob("pydec-*/*"))
    if ledger:
        assert [view["members"] for view in summary["ledger"]["epochs"]] == [[0]]
        assert summary["ledger"]["epoch"] == 4  # the first options, one came, two left
        assert main(["ledger", "verify", str(tmp_path / "ledger" / "rank-0")]) == 0


@pytest.mark.slow  # two jobs, half a minute
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("mpirun")
def test_a_rank_that_is_killed_is_replaced(tmp_path, started):
    run = tmp_path / "run"
    job = started("-n 4 --replace", "--ledger ledger")
    until_s = time.monotonic() + 120.0
    victim = run / "metrics/rank-3.jsonl"
    while not victim.exists() or len(victim.read_text().splitlines()) < 20:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.1)
    os.kill(pid_of(3, tmp_path), signal.SIGKILL)
    _, err = job.communicate(timeout=250)
    assert job.returncode == 0, err
    assert "pydec: replacing rank 3: 3 -> 4 ranks, continuing from step " in err
    summary = json.loads((run / "summary.json").read_text())
    assert [(row["from"], row["to"], row["replaced"]) for row in summary["scaled"]] == [(3, 4, [3])]
    assert not summary["scaled"][0]["restarted"]
    assert (summary["status"], summary["ranks_finished"], summary["lost"]) == ("done", 4, [])
    assert sorted(summary["ledger"]["epochs"][-1]["members"]) == [0, 1, 2, 3]
    assert main(["ledger", "verify", str(tmp_path / "ledger")]) == 0


@pytest.mark.slow  # three jobs, half a minute
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("mpirun")
def test_a_newcomer_of_another_chain_is_refused_and_the_run_goes_on(tmp_path, started):
    run = tmp_path / "run"
    foreign = founders("foreign", [SigningKey.generate().public])
    (tmp_path / "ledger" / "rank-2").mkdir(parents=True)
    create(tmp_path / "ledger" / "rank-2", foreign)
    job = started("-n 2", "--ledger ledger")
    assert granted(job, run, "+1") == 1
    _, err = job.communicate(timeout=200)
    assert job.returncode == 0, err
    assert "3 ranks did not start (--ledger: rank 0 has chain " in err
    assert f"rank 2 has chain {foreign.chain_id.hex()[:16]}; use the directories of one run" in err
    assert "going on with 2 from step " in err
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["ranks_finished"]) == ("done", 300, 2)
    assert main(["ledger", "verify", str(tmp_path / "ledger" / "rank-1")]) == 0


def pid_of(rank: int, folder: Path) -> int:
    """The process of a rank of the job that works in a folder."""
    for pid in sessions():
        try:
            words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            here = Path(f"/proc/{pid}/cwd").resolve() == folder.resolve()
        except OSError:
            continue
        if here and b"OMPI_COMM_WORLD_RANK=%d" % rank in words:
            return pid
    raise AssertionError(f"rank {rank} does not run")
