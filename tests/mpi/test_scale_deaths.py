"""Newcomers to a job die at each stage of joining it, or MPI takes the old ranks along: it trains on."""

from __future__ import annotations

import json
import textwrap

import pytest

from .test_scale import TASK, granted, losses, pauses
from .test_scale import started as started  # noqa: PLC0414  # a fixture

pytestmark = [
    pytest.mark.slow,  # two or three starts each
    pytest.mark.timeout(400),
    pytest.mark.usefixtures("mpirun"),  # that is: not inside mpirun
]
HOOKS = """
import os, signal, sys
from pydec.comm import enlarge, spawning
from pydec.comm.mpi import Job, current_job

def end(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

if "--joins" in sys.argv:
    if {stage!r} == "ready":
        enlarge._say = end
    elif {stage!r} == "told":
        enlarge.bounded = end
    elif {stage!r} == "met all":
        enlarge._whole = end
    elif {stage!r} == "one of all":
        enlarge._made = end
    elif {stage!r} == "its job":
        Job._duplicate = end
    elif {stage!r} == "set up":
        from pydec.train import prepare
        prepare.DecentralizedOptimizer = end
elif {stage!r} == "started":
    spawning.START_S = 5.0
elif {stage!r} == "all old ranks":
    enlarge.bounded = end
elif {stage!r} == "an old rank":
    real = enlarge.bounded
    enlarge.bounded = lambda *args: end() if current_job().rank else real(*args)
"""
FIRST = """
import os, signal, sys
if "--joins" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(tmp_path, started):
    """Asks two ranks for a third, with a stage at which processes end; what came of it."""

    def asked(stage):
        (tmp_path / "tiny.py").write_text(HOOKS.format(stage=stage) + textwrap.dedent(TASK))
        if stage == "started":
            (tmp_path / "sitecustomize.py").write_text(FIRST)
        job = started("-n 2")
        status = granted(job, tmp_path / "run", "+1")
        _, err = job.communicate(timeout=300)
        assert job.returncode == 0, err
        summary = json.loads((tmp_path / "run/summary.json").read_text())
        assert (summary["status"], summary["steps"]) == ("done", 300), err
        seen = losses(tmp_path / "run")
        assert len(seen) == 300
        assert sum(seen[-30:]) < 0.7 * sum(seen[:30])
        return status, err, summary

    return asked


@pytest.mark.parametrize("stage", ["started", "ready", "told", "met all", "one of all", "its job"])
def test_all_start_again_with_others_if_a_newcomer_dies_on_its_way(run, stage):
    status, err, summary = run(stage)
    assert status == 0, err
    assert "nobody can join while the ranks train (" in err
    rows = summary["scaled"]
    assert [(row["from"], row["to"], row["restarted"]) for row in rows] == [(2, 3, True)]
    assert summary["ranks_finished"] == 3


def test_a_newcomer_that_dies_while_all_set_up_is_a_rank_that_died_or_does_not_come(run, tmp_path):
    status, err, summary = run("set up")
    assert summary["ranks_finished"] == 2, err
    assert status == (0 if summary["scaled"] else 1), err
    assert len(pauses(tmp_path / "run")) == 1


def test_a_job_that_dies_when_newcomers_come_goes_on_from_the_step_that_it_was_at(run):
    status, err, summary = run("all old ranks")
    assert status == 1
    assert "starting again" in err
    assert "scaled" not in summary
    assert summary["ranks_finished"] == 2


def test_a_rank_that_dies_when_newcomers_come_ends_nothing(run):
    _, err, summary = run("an old rank")
    assert summary["ranks_finished"] >= 2, err
