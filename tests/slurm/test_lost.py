"""Ranks and nodes that are lost under a real Slurm: the others go on in the same job, without a restart."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
RANKS = range(4)
UNTIL_TWO = """
import sys, time
from pathlib import Path
from pydec.comm.mpi import open_mpi
t = open_mpi(60.0)
Path(sys.argv[1], f"ready-{t.size}-{t.rank}").touch()
while t.size == 3:
    t.lost()
    time.sleep(0.01)
"""


def test_a_killed_rank_ends_nobody_else(training):
    words = ["pydec", "run", "-n", "4", "train", *training.words(150), "--run-dir", "run"]
    job = training.start("salloc", "-N4", "-n4", *words)
    training.until_step(40, RANKS, job)
    training.kill(2)
    status, err = training.end(job)
    assert status == 0, err
    assert "pydec: rank 2 died on the way; the others have finished" in err
    summary = training.summary()
    assert [lost["rank"] for lost in summary["lost"]] == [2]
    assert (summary["status"], summary["ranks_finished"]) == ("done", 3)


def test_plain_srun_starts_the_ranks_by_pmix_and_they_outlive_one(training):
    training.environment["OMPI_MCA_mpi_ft_enable"] = "1"
    srun = ["srun", "--mpi=pmix", "--no-kill", "--kill-on-bad-exit=0"]
    words = [*srun, "pydec", "train", *training.words(150), "--run-dir", "run"]
    job = training.start("salloc", "-N3", "-n3", "--no-kill", *words)
    training.until_step(40, range(3), job)
    training.kill(2)
    status, err = training.end(job)
    assert status == 137, err  # that of the dead, as srun has it
    summary = training.summary()
    assert [lost["rank"] for lost in summary["lost"]] == [2]
    assert (summary["status"], summary["ranks_finished"]) == ("done", 2)


@pytest.mark.parametrize("how", ["dies", "falls silent"])
def test_a_lost_node_is_evicted_and_the_others_finish(cluster, training, how):
    more = ["--run-dir", "run", "--ledger", "L", "--grace", "3"]
    words = ["pydec", "run", "-n", "4", "train", *training.words(200, *more)]
    job = training.start("salloc", "-N4", "-n4", "--no-kill", *words)
    training.until_step(40, RANKS, job)
    (cluster.kill_node if how == "dies" else cluster.silence_node)(2)
    status, err = training.end(job)
    assert status == 0, err
    assert "starting again" not in err
    assert "pydec: rank 2 died on the way; the others have finished" in err
    summary = training.summary()
    assert [lost["rank"] for lost in summary["lost"]] == [2]
    assert (summary["status"], summary["ranks_finished"]) == ("done", 3)
    assert summary["ledger"]["epochs"][-1]["members"] == [0, 1, 3]
    assert "silent" in summary["lost"][0]["reason"] or how == "dies"


def test_under_mpirun_the_job_starts_again_on_the_nodes_that_are_left(cluster, training):
    program = training.program(UNTIL_TWO)
    words = ["pydec", "run", "--launcher", "mpirun", "-n", "3", program, str(training.folder)]
    job = training.start("salloc", "-N3", "-n3", "--no-kill", *words)
    ready = [training.folder / f"ready-3-{rank}" for rank in range(3)]
    training.until(lambda: all(path.exists() for path in ready), job)
    cluster.kill_node(2)
    status, err = training.end(job)
    assert status == 0, err
    assert "host " + cluster.nodes[2] + " was lost; starting again" in err
    assert "start 2 with 2 ranks" in err
    assert sorted(path.name for path in training.folder.glob("ready-2-*")) == ["ready-2-0", "ready-2-1"]


def test_a_failure_that_all_ranks_have_ends_the_job_with_its_status_and_reason(training):
    program = training.program(
        "import pydec\nfrom pydec.errors import ConfigError\n"
        "with pydec.init() as peer:\n    raise ConfigError('no such thing')\n"
    )
    status, err = training.end(training.start("salloc", "-N2", "-n2", "pydec", "run", "-n", "2", program))
    assert status == 2, err
    assert [line for line in err.splitlines() if line.startswith("pydec:")][-1].endswith(": no such thing")
    assert "starting again" not in err
