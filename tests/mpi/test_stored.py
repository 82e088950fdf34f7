"""Under a real mpirun: ranks with disks of their own train on data that only one of them had."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest

from pydec.store.adding import add
from pydec.store.inputs import open_input
from pydec.store.manifest import Policy
from pydec.store.store import Store

PROGRAM = """
import os, signal, sys
import torch
from torch.nn.functional import cross_entropy
from pydec.cli.main import main
from pydec.train import Defaults, Task

RANK = int(os.environ["OMPI_COMM_WORLD_RANK"])
calls = 0

def loss(output, target):
    global calls
    calls += 1
    if calls == DIES and RANK == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return cross_entropy(output, target)

def held(stored=None) -> Task:
    return Task(model=torch.nn.Linear(16, 3), train=stored(fields=["x", "y"]), loss=loss,
        defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd"))

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.exit(main("train program:held --data d --store store-{rank} --steps 60 --eval-every 100 "
        "--threads 1 --run-dir run --quiet".split()))
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("dies", [0, 20])
def test_ranks_train_on_data_that_one_of_them_had_also_when_one_dies(mpirun, tmp_path, dies):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "x.npy", rng.standard_normal((3000, 16)).astype(np.float32))
    np.save(tmp_path / "in" / "y.npy", rng.integers(0, 3, 3000))
    with Store(tmp_path / "store-0", create=True) as store:
        root = add(
            store, open_input(str(tmp_path / "in")), "d", chunk_bytes=4096, policy=Policy(replicas=2)
        ).root
    program = textwrap.dedent(PROGRAM).replace("DIES", str(dies))
    done = mpirun(program, 3, flags=["--with-ft", "ulfm"] if dies else (), timeout_s=300.0)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["ranks_finished"]) == ("done", 2 if dies else 3)
    assert summary["data"]["root"] == root.hex()
    assert summary["data"]["objects_fetched"] > 10
    with Store(tmp_path / "store-1") as store:
        assert store.roots() == [root]
        assert len(list(store.objects.names())) > 10
