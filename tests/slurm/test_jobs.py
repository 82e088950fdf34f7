"""Jobs of a real Slurm that are stopped before they are done, and go on: examples/slurm as they are."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
STEPS, LATER_S = 60, 4.0  # more than three minutes, unless in a hurry
RANKS = range(4)  # of each script that trains
TRAINING = ("cpu.sbatch", "nodes.sbatch", "mpirun.sbatch")
GPUS = range(8)
LIKE_A_USER_S = """
import os, sys, time
from pathlib import Path
import pydec
folder, start = Path(sys.argv[1]), os.environ.get("SLURM_RESTART_COUNT", "0")
with pydec.init() as peer:
    (folder / f"start-{start}-{peer.rank}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
    while start == "0":
        peer.check()
        time.sleep(0.05)
"""


@dataclass
class Trainings:
    """One for each script, by its name."""

    make: object
    cluster: object

    def submit(self, *scripts, more=()):
        found = {script: self.make(script) for script in scripts}
        for script, training in found.items():
            training.later_s = LATER_S
            training.submit(script, *training.words(STEPS, *more))
        return found


@pytest.fixture
def trainings(cluster, training, tmp_path):
    return Trainings(lambda name: type(training)(cluster, tmp_path / name.partition(".")[0]), cluster)


def limit(cluster, job):
    """Leave the job more than a minute, and less than it wants to be told before."""
    hours, minutes, seconds = map(int, cluster.job(job)["RunTime"].split(":"))
    ran_s = (hours * 60 + minutes) * 60 + seconds
    cluster.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={(ran_s + 80) // 60 + 1}"])


def starts_again(*trainings):
    """The jobs are requeued, and have time enough."""
    for training in trainings:
        training.until_requeued()
        training.cluster.run(["scontrol", "update", f"JobId={training.job}", "TimeLimit=60"])
        training.hurry()


def goes_on(training, script):
    """The job finishes from the step that was saved last, by the signal if no option says how often."""
    training.until_completed()
    out = training.output()
    steps = re.findall(r"going on from step (\d+)", out)
    assert len(steps) == 1, f"{script}: {out}"
    assert 0 < int(steps[0]) < STEPS, f"{script}: {out}"
    assert training.summary()["status"] == "done", script
    assert training.summary()["steps"] == STEPS, script


def test_every_script_saves_before_the_time_limit_and_its_job_goes_on(cluster, training, trainings):
    found = trainings.submit(*TRAINING)
    gpu = training
    gpu.submit("gpu.sbatch", gpu.program(LIKE_A_USER_S), str(gpu.folder))
    for script in found.values():
        script.until_step(10, RANKS)
    started = [gpu.folder / f"start-0-{rank}" for rank in GPUS]
    cluster.until(lambda: all(path.exists() for path in started), f"not started:\n{gpu.output()}")
    for script in (*found.values(), gpu):
        limit(cluster, script.job)
    starts_again(*found.values(), gpu)
    for name, script in found.items():
        goes_on(script, name)
    gpu.until_completed()
    again = [(gpu.folder / f"start-1-{rank}").read_text() for rank in GPUS]
    assert again == ["0", "1", "2", "3"] * 2  # one of its node's four GPUs for each rank


def test_jobs_that_are_requeued_go_on(cluster, trainings):
    found = trainings.submit("nodes.sbatch")
    found |= trainings.submit(
        "mpirun.sbatch", more=("--checkpoint-every", "5")
    )  # Slurm ends mpirun's daemons
    for training in found.values():
        training.until_step(10, RANKS)
        cluster.run(["scontrol", "requeue", str(training.job)])
    starts_again(*found.values())
    for name, training in found.items():
        goes_on(training, name)


def test_a_job_whose_node_is_lost_is_requeued_and_goes_on_elsewhere(cluster, trainings):
    (training,) = trainings.submit("cpu.sbatch", more=("--checkpoint-every", "5")).values()
    training.until_step(10, RANKS)
    first = cluster.job(training.job)["BatchHost"]
    cluster.kill_node(cluster.nodes.index(first))
    starts_again(training)
    goes_on(training, "cpu.sbatch")
    assert first not in cluster.job(training.job)["NodeList"]


def test_mpirun_starts_the_ranks_of_an_allocation(training):
    program = training.program(
        "import sys\nfrom pathlib import Path\nimport pydec\n"
        "with pydec.init() as peer:\n    Path(sys.argv[1], f'{peer.size}-{peer.rank}').touch()\n"
    )
    words = ["mpirun", "-n", "2", "python", program, str(training.folder)]
    status, err = training.end(training.start("salloc", "-N2", "-n2", *words))
    assert status == 0, err
    assert sorted(path.name for path in training.folder.glob("2-*")) == ["2-0", "2-1"]
