"""How more ranks come to a running job: they join it where they can, else all start again; why is said."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest

from pydec.cli.main import main
from pydec.privacy.accountant import Mechanism, epsilon
from pydec.store.adding import add
from pydec.store.inputs import open_input
from pydec.store.manifest import Policy
from pydec.store.store import Store

from .test_scale import granted, losses, pauses, pid_of
from .test_scale import started as started  # noqa: PLC0414  # a fixture

pytestmark = [
    pytest.mark.slow,  # a job or two each
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("mpirun"),  # that is: not inside mpirun
]
HELD = """
def held(stored=None) -> Task:
    return Task(model=torch.nn.Linear(4, 3), train=stored(fields=["x", "y"]), loss=loss,
        defaults=Defaults(batch_size=8, optimizer="sgd"))
"""


def grown(job, run, ranks):
    """Ask for one more, and see the job through: what it said, and its summary."""
    assert granted(job, run, "+1") == 0
    return ended(job, run, ranks + 1)


def ended(job, run, ranks):
    _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["ranks_finished"]) == ("done", ranks), err
    return err, summary


def wait_for_step(run, rank, step, job):
    path, until_s = run / f"metrics/rank-{rank}.jsonl", time.monotonic() + 120.0
    while not path.exists() or len(path.read_text().splitlines()) < step:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.1)


def test_another_rank_takes_newcomers_in_once_rank_0_is_dead(tmp_path, started):
    run = tmp_path / "run"
    job = started("-n 4 --replace", "--steps 900 --ledger ledger")
    wait_for_step(run, 0, 20, job)
    os.kill(pid_of(0, tmp_path), signal.SIGKILL)
    deadline_s = time.monotonic() + 200.0
    while not pauses(run, 1):
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    err, summary = grown(job, run, 4)
    assert "pydec: replacing rank 0: 3 -> 4 ranks, continuing from step " in err
    rows = [(row["from"], row["to"], row["restarted"]) for row in summary["scaled"]]
    assert rows == [(3, 4, False), (4, 5, False)], err
    assert summary["lost"] == []
    assert main(["ledger", "verify", str(tmp_path / "ledger")]) == 0


def test_newcomers_join_ranks_that_train_on_data_of_the_store(tmp_path, started):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    y = np.arange(1200) % 3
    np.save(tmp_path / "in" / "x.npy", (rng.standard_normal((1200, 4)) + 2 * np.eye(3, 4)[y]).astype("f4"))
    np.save(tmp_path / "in" / "y.npy", y)
    with Store(tmp_path / "store-0", create=True) as store:
        what = open_input(str(tmp_path / "in"))
        root = add(store, what, "d", chunk_bytes=4096, policy=Policy(replicas=2)).root
    (tmp_path / "tiny.py").write_text((tmp_path / "tiny.py").read_text() + HELD)
    job = started("-n 2", f"--data d --store {tmp_path}/store-{{rank}}", task="held")
    err, summary = grown(job, tmp_path / "run", 2)
    assert [row["restarted"] for row in summary["scaled"]] == [False], err
    assert summary["data"]["root"] == root.hex()
    assert summary["data"]["objects_fetched"] > 2
    seen = losses(tmp_path / "run")
    assert len(seen) == 300
    assert sum(seen[-30:]) < 0.7 * sum(seen[:30])
    with Store(tmp_path / "store-2") as store:
        assert store.roots() == [root]


def test_newcomers_join_ranks_that_bear_liars(tmp_path, started):
    job = started("-n 4", "--byzantine 1 --aggregate auto --topology complete --compressor none --steps 900")
    err, summary = grown(job, tmp_path / "run", 4)
    assert [row["restarted"] for row in summary["scaled"]] == [False], err
    assert len(summary["byzantine"]["ranks"]) == 1


def test_what_privacy_has_cost_before_counts_when_newcomers_have_joined(tmp_path, started):
    job = started("-n 2", "--dp-noise 1.0")
    err, summary = grown(job, tmp_path / "run", 2)
    assert [row["restarted"] for row in summary["scaled"]] == [False], err
    before = summary["scaled"][0]["step"]
    found = summary["privacy"]
    spent = {Mechanism(1.0, 8 / 120): before, Mechanism(1.0, 8 / 80): 300 - before}
    assert found["epsilon"] == pytest.approx(epsilon(spent, found["delta"]))
    assert len(set(found["epsilon_by_rank"])) == 1


def test_ranks_that_audit_one_another_start_again_and_say_so(tmp_path, started, capfd):
    job = started("-n 4", "--ledger ledger --audit 0.1 --algorithm dpsgd:order=atc")
    err, summary = grown(job, tmp_path / "run", 4)
    said = "nobody can join while the ranks train (auditors take steps again from checkpoints); all start"
    assert said in err
    assert said in capfd.readouterr().out
    assert [row["restarted"] for row in summary["scaled"]] == [True], err


def test_without_fault_tolerance_all_start_again_and_say_so(tmp_path, started, capfd):
    job = started("-n 2 --no-fault-tolerance")
    err, summary = grown(job, tmp_path / "run", 2)
    said = "2 -> 3 ranks: all start again from a checkpoint (--no-fault-tolerance)"
    assert said in err
    assert said in capfd.readouterr().out
    assert [row["restarted"] for row in summary["scaled"]] == [True], err
