"""Jobs of a real Slurm that are stopped before they are done, and go on: examples/slurm as they are."""

from __future__ import annotations

import re

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STEPS = 240  # a minute at least: twice what Slurm may take to look at a time limit
RANKS = range(2)  # fewer than the scripts ask for: a machine of two cores runs all nodes
FEW = {
    "cpu.sbatch": {"ntasks_per_node": "2"},
    "nodes.sbatch": {"nodes": "2"},
    "mpirun.sbatch": {"nodes": "2"},
}


@pytest.fixture
def training(training):
    training.step_s = 0.25
    return training


def goes_on(training, job):
    """The job is started again and finishes from where it was stopped."""
    training.cluster.until(lambda: int(training.cluster.job(job)["Restarts"]) > 0, "not requeued", 600.0)
    training.cluster.run(["scontrol", "update", f"JobId={job}", "TimeLimit=60"])
    training.until_state(job, "COMPLETED")
    out = training.output()
    assert "go on with      pydec train --resume" in out
    (step,) = re.findall(r"going on from step (\d+)", out)
    assert 0 < int(step) < STEPS
    assert training.summary()["status"] == "done"
    assert training.summary()["steps"] == STEPS


@pytest.mark.parametrize("script", FEW)
def test_a_signal_before_the_time_limit_saves_and_the_job_goes_on(training, script):
    signal = "B:USR1@1500" if script == "mpirun.sbatch" else "USR1@1500"
    job = training.submit(script, *training.words(STEPS), time="60", signal=signal, **FEW[script])
    training.until_step(20, RANKS)
    training.cluster.run(["scontrol", "update", f"JobId={job}", "TimeLimit=20"])  # less than 1500 s from now
    goes_on(training, job)


def test_a_job_that_is_requeued_goes_on(training):
    job = training.submit("nodes.sbatch", *training.words(STEPS), time="60", **FEW["nodes.sbatch"])
    training.until_step(20, RANKS)
    training.cluster.run(["scontrol", "requeue", str(job)])
    goes_on(training, job)


def test_a_job_whose_node_is_lost_is_requeued_and_goes_on_elsewhere(cluster, training):
    words = training.words(STEPS // 2, "--checkpoint-every", "20")
    job = training.submit("cpu.sbatch", *words, time="60", **FEW["cpu.sbatch"])
    training.until_step(30, RANKS)
    first = cluster.job(job)["BatchHost"]
    cluster.kill_node(cluster.nodes.index(first))
    cluster.until(lambda: int(cluster.job(job)["Restarts"]) > 0, "not requeued")
    training.until_state(job, "COMPLETED")
    assert "going on from step" in training.output()
    assert first not in cluster.job(job)["NodeList"]
    assert training.summary()["steps"] == STEPS // 2


def test_mpirun_starts_the_ranks_of_an_allocation(training):
    program = training.program(
        "import sys\nfrom pathlib import Path\nimport pydec\n"
        "with pydec.init() as peer:\n    Path(sys.argv[1], f'{peer.size}-{peer.rank}').touch()\n"
    )
    words = ["mpirun", "-n", "2", "python", program, str(training.folder)]
    status, err = training.end(training.start("salloc", "-N2", "-n2", *words))
    assert status == 0, err
    assert sorted(path.name for path in training.folder.glob("2-*")) == ["2-0", "2-1"]
