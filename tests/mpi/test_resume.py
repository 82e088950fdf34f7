"""Checkpoints under a real mpirun: a signal, a second start, the same bits with dropout; and fewer ranks."""

from __future__ import annotations

import json
import shutil
import textwrap

import pytest
import torch
from safetensors.torch import load_file

PROGRAM = """
import os, signal, sys
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from pydec.cli.main import main
from pydec.train import Defaults, Task

RANK = int(os.environ["OMPI_COMM_WORLD_RANK"])
calls = 0

def loss(output, target):
    global calls
    calls += 1
    if "STOPPING" in os.environ and calls == 6 and RANK == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    return cross_entropy(output, target)

def blobs() -> Task:
    global calls
    calls = 0
    random = torch.Generator().manual_seed(1)
    y = torch.arange(240) % 3
    x = torch.randn(240, 4, generator=random) + 2.0 * torch.eye(3, 4)[y]
    data = TensorDataset(x, y)
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 3))
    return Task(model=model, train=data, loss=loss, validation=data, defaults=Defaults(batch_size=8))

if __name__ == "__main__":
    here = os.path.join(sys.argv[1], "HERE".replace("RANK", str(RANK)))
    os.makedirs(here, exist_ok=True)
    os.chdir(here)
    for words in LINES:
        if "run" in words and "--resume" not in words:
            os.environ["STOPPING"] = "1"
        status = main(["train", *words, "--quiet"])
        if status:
            sys.exit(status)
"""


def program(*lines: str, here: str = ".") -> str:
    """Commands that every rank gives in a directory of its own, if ``here`` names the RANK."""
    words = repr([line.split() for line in lines])
    return textwrap.dedent(PROGRAM).replace("LINES", words).replace("HERE", here)


def state(run, step: int, rank: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoints/step-{step}/rank-{rank}.safetensors")


@pytest.mark.timeout(600)
def test_a_signal_a_second_start_and_a_third_on_fewer_ranks(mpirun, tmp_path):
    words = (
        "program:blobs --steps 14 --seed 5 --threads 1 --optimizer adamw --schedule cosine --eval-every 100"
    )
    lines = f"{words} --run-dir whole --checkpoint-every 3", f"{words} --run-dir run"
    stopped = mpirun(program(*lines), 3, timeout_s=180.0)
    assert stopped.returncode == 143, stopped.stderr
    (folder,) = [path for path in (tmp_path / "run/checkpoints").iterdir() if path.is_dir()]
    assert 5 <= int(folder.name[5:]) <= 9
    assert len(list(folder.iterdir())) == 6
    done = mpirun(program("--resume run"), 3, timeout_s=180.0)
    assert done.returncode == 0, done.stderr
    for rank in range(3):
        mine, theirs = state(tmp_path / "run", 14, rank), state(tmp_path / "whole", 14, rank)
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert "pydec/random/torch" in mine

    refused = mpirun(program("--resume run --steps 18", "--resume run --steps 18"), 2, timeout_s=180.0)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["ranks_finished"]) == ("done", 18, 2)
    assert refused.returncode == 2, refused.stderr
    assert "nothing left to do" in refused.stderr


@pytest.mark.timeout(600)
def test_a_node_that_is_lost_with_its_disk_costs_no_checkpoint(mpirun, tmp_path):
    words = (
        "program:blobs --steps 14 --seed 5 --threads 1 --optimizer adamw --eval-every 100 --replicas 2 "
        "--checkpoint-every 4"
    )
    lines = f"{words} --run-dir whole", f"{words} --run-dir run"
    stopped = mpirun(program(*lines, here="host-RANK"), 3, timeout_s=180.0)
    assert stopped.returncode == 143, stopped.stderr
    whole = [state(tmp_path / f"host-{rank}/whole", 14, rank) for rank in range(3)]
    shutil.rmtree(tmp_path / "host-1")
    done = mpirun(program("--resume run", here="host-RANK"), 3, timeout_s=180.0)
    assert done.returncode == 0, done.stderr
    for rank, theirs in enumerate(whole):
        mine = state(tmp_path / f"host-{rank}/run", 14, rank)
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []

    shutil.rmtree(tmp_path / "host-0")
    shutil.move(tmp_path / "host-2", tmp_path / "host-0")
    fewer = mpirun(program("--resume run --steps 16", here="host-RANK"), 2, timeout_s=180.0)
    assert fewer.returncode == 0, fewer.stderr
    summary = json.loads((tmp_path / "host-0/run/summary.json").read_text())
    assert (summary["status"], summary["steps"], summary["ranks_finished"]) == ("done", 16, 2)
    for rank in range(2):
        assert len(list((tmp_path / f"host-{rank}/run/checkpoints/step-16").glob("rank-*.json"))) == 2
