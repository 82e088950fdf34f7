"""pydec scale under a real mpirun: two ranks, then three, then one, of one run that ends as it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from pydec.cli.main import main
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


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has ended


def granted(job: subprocess.Popen[str], run: Path, count: str) -> None:
    """Ask until the job has taken a step, and is not refused for that."""
    until_s = time.monotonic() + 120.0
    while main(["scale", count, "--run-dir", str(run)]):
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.2)


@pytest.mark.slow  # three jobs, half a minute
@pytest.mark.timeout(400)
@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
def test_two_ranks_then_three_then_one(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "tiny.py").write_text(textwrap.dedent(TASK))
    run = tmp_path / "run"
    words = "run -n 2 train tiny:blobs --steps 300 --lr 0.05 --seed 3 --threads 1 --quiet --run-dir"
    job = subprocess.Popen(
        [sys.executable, "-m", "pydec", *words.split(), str(run)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        granted(job, run, "+1")
        granted(job, run, "=1")
        _, err = job.communicate(timeout=200)
    finally:
        job.kill()
        job.wait()
    assert job.returncode == 0, err
    shown = capfd.readouterr().out
    assert "2 -> 3 ranks, continuing from step " in shown
    assert "3 -> 1 ranks: first step " in shown
    assert [line for line in err.splitlines() if "continuing" in line] == [
        line for line in err.splitlines() if line.startswith("pydec: ") and " -> " in line
    ]
    summary = json.loads((run / "summary.json").read_text())
    assert [(row["from"], row["to"]) for row in summary["scaled"]] == [(2, 3), (3, 1)]
    assert 0 < summary["scaled"][0]["step"] < summary["scaled"][1]["step"] < 300
    assert all(row["time_s"] > 0 for row in summary["scaled"])
    assert (summary["status"], summary["steps"], summary["ranks_started"]) == ("done", 300, 1)
    seen = losses(run)
    assert len(seen) == 300
    assert sum(seen[-30:]) < 0.7 * sum(seen[:30])
    assert not [pid for pid in sessions() if str(run).encode() in command_line(pid)]
    assert not list(tmp_path.glob("pydec-*/*"))
