"""Nodes that are lost with their disks under a real mpirun, where messages are sealed: keys and ledgers."""

from __future__ import annotations

import json
import shutil

import pytest

from pydec.cli.main import main
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey

from .test_resume import program

WORDS = (
    "program:blobs --steps 14 --seed 5 --threads 1 --eval-every 100 --replicas 2 --checkpoint-every 4 "
    "--secure on"
)


def run(mpirun, ranks, *lines):
    return mpirun(program(*lines, here="host-RANK"), ranks, timeout_s=180.0)


def summary(path):
    return json.loads((path / "run/summary.json").read_text())


@pytest.mark.timeout(600)
def test_with_a_key_of_the_job_the_new_disk_is_told_the_key(mpirun, tmp_path):
    keyfile.create(tmp_path / "job.key", SigningKey(bytes(32)))
    key = f"--key {tmp_path}/job.key --pad"
    stopped = run(mpirun, 2, f"{WORDS} {key} --run-dir run")
    assert stopped.returncode == 143, stopped.stderr
    shutil.rmtree(tmp_path / "host-1")
    shut_out = run(mpirun, 2, "--resume run --secure on")
    assert shut_out.returncode != 0
    assert "on a host that is new to a run, --resume needs --key beside it" in shut_out.stderr
    done = run(mpirun, 2, f"--resume run --secure on {key}")
    assert done.returncode == 0, done.stderr
    assert summary(tmp_path / "host-0")["secure"]["trust"].startswith("only holders of key")
    assert json.loads((tmp_path / "host-1/run/config.json").read_text())["options"]["pad"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_a_ledger_the_rank_of_a_lost_disk_joins_with_a_new_key(mpirun, tmp_path):
    stopped = run(mpirun, 4, f"{WORDS} --ledger L --run-dir run")
    assert stopped.returncode == 143, stopped.stderr
    key = (tmp_path / "host-1/L/rank-1/key.json").read_text()
    shutil.rmtree(tmp_path / "host-1")
    unsaid = run(mpirun, 4, "--resume run --secure on")
    assert unsaid.returncode == 2
    assert "rank 1: --resume run: this host had never seen the run" in unsaid.stderr
    assert "say --ledger L beside --resume" in unsaid.stderr
    shutil.rmtree(tmp_path / "host-1")
    done = run(mpirun, 4, "--resume run --secure on --ledger L")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "host-1/L/rank-1/key.json").read_text() != key
    assert [
        main(["ledger", "verify", str(tmp_path / f"host-{rank}/L/rank-{rank}")]) for rank in range(4)
    ] == [0] * 4
    ledger = summary(tmp_path / "host-0")["ledger"]
    assert sorted(ledger["epochs"][-1]["members"]) == [0, 1, 2, 3]
    assert ledger["checkpoints"][-1] == 14


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_when_more_disks_are_lost_than_the_ledger_can_do_without_a_new_one_goes_on(mpirun, tmp_path):
    stopped = run(mpirun, 3, f"{WORDS} --ledger L --run-dir run")
    assert stopped.returncode == 143, stopped.stderr
    shutil.rmtree(tmp_path / "host-1")
    stuck = run(mpirun, 3, "--resume run --secure on --ledger L")
    assert stuck.returncode == 2
    assert "nobody can go on without 1 of 3 members" in stuck.stderr
    assert "or a new one, --ledger NEW" in stuck.stderr
    done = run(mpirun, 3, "--resume run --secure on --ledger M")
    assert done.returncode == 0, done.stderr
    assert (summary(tmp_path / "host-0")["steps"], summary(tmp_path / "host-0")["ledger"]["directory"]) == (
        14,
        "M",
    )
