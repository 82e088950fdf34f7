"""Four hosts, network namespaces, train on data that one of them had; it dies, and the others read on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pydec.cli import bench
from pydec.store.adding import add
from pydec.store.inputs import open_input
from pydec.store.manifest import Policy
from pydec.store.store import Store
from pydec.store.upkeep import objects_of

lab = bench.load("netlab.lab")
pytestmark = [
    pytest.mark.skipif(lab.missing() is not None, reason=str(lab.missing())),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]
ROOT = Path(__file__).parents[2]
HOSTS, LOST = 4, 3  # mpirun is on the first
PROGRAM = """
import os, time
import torch
from torch.nn.functional import cross_entropy
from pydec.train import Defaults, Task

def loss(output, target):
    if os.environ["OMPI_COMM_WORLD_SIZE"] == "4":
        time.sleep(0.1)  # so that the host is lost in training
    return cross_entropy(output, target)

def held(stored=None) -> Task:
    return Task(model=torch.nn.Linear(16, 3), train=stored(fields=["x", "y"]), loss=loss,
        defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd"))
"""
WORDS = (
    "train program:held --data d --store store-{rank} --keep-data owed --steps 400 --eval-every 400 "
    "--checkpoint-every 20 --threads 1 --run-dir run --quiet"
)


@pytest.fixture
def hosts():
    with lab.Lab([lab.Link("1gbit")] * HOSTS) as made:
        yield made


def start(made, folder: Path) -> subprocess.Popen[str]:
    names = ",".join(f"{host}:1" for host in made.hosts)
    words = ["run", "-n", str(HOSTS), "--hosts", names, "--launch-agent", str(made.launcher), *WORDS.split()]
    return subprocess.Popen(
        made.inside(0, [sys.executable, "-m", "pydec", *words]),
        env={
            **made.environment(),
            "PYTHONPATH": f"{ROOT}:{folder}",
            "OMPI_MCA_btl_tcp_if_include": "eth0",
            "PRTE_MCA_prte_if_include": "eth0",
        },
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def held(folder: Path, rank: int) -> set[bytes]:
    """Objects in a rank's store."""
    found = (folder / f"store-{rank}" / "objects").glob("??/*")
    return {bytes.fromhex(path.name) for path in found if len(path.name) == 64}


@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
def test_the_others_read_on_when_the_host_that_had_the_data_dies_with_its_disk(hosts, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "x.npy", rng.standard_normal((3000, 16)).astype(np.float32))
    np.save(tmp_path / "in" / "y.npy", rng.integers(0, 3, 3000))
    (tmp_path / "program.py").write_text(PROGRAM)
    with Store(tmp_path / f"store-{LOST}", create=True) as store:
        manifest = add(
            store, open_input(str(tmp_path / "in")), "d", chunk_bytes=4096, policy=Policy(replicas=2)
        )
        everything = set(objects_of(store, manifest))
    process = start(hosts, tmp_path)
    try:
        until_s = time.monotonic() + 300.0
        while not (
            everything <= set.union(*(held(tmp_path, rank) for rank in range(LOST)))
            and len(list((tmp_path / "run" / "checkpoints").glob("step-*/rank-*.json"))) >= HOSTS
        ):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until_s
            time.sleep(0.05)
        hosts.lose(LOST)
        shutil.rmtree(tmp_path / f"store-{LOST}")
        said, _ = process.communicate(timeout=400)
    finally:
        hosts.kill()
        process.kill()
    assert process.returncode == 0, said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["ranks_finished"], summary["steps"]) == ("done", LOST, 400)
    assert summary["data"]["root"] == manifest.root.hex()
    assert summary["data"]["bad_answers"] == 0
    copies = [sum(name in held(tmp_path, rank) for rank in range(LOST)) for name in everything]
    assert min(copies) >= 1
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["resumed"] >= 20
