"""The suite ``recover`` under real mpirun: a rank is killed, and the figure is of its neighbours' clocks."""

from __future__ import annotations

import os
import time

import pytest

from pydec.cli import bench

kills = bench.load("recover_kills")


@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
@pytest.mark.timeout(240)
def test_both_neighbours_of_a_killed_rank_finish_a_round_without_it():
    began_s = time.monotonic()
    assert 0.0 < kills.kill(256, seed=0) < time.monotonic() - began_s


@pytest.mark.slow
@pytest.mark.usefixtures("mpirun")
@pytest.mark.timeout(240)
def test_nobody_is_dropped_for_being_slow():
    assert kills.false_alarms(50).value == 0


@pytest.mark.slow
@pytest.mark.usefixtures("mpirun")
@pytest.mark.timeout(400)
def test_more_ranks_take_steps_and_the_time_until_then_is_measured():
    joined, *more = bench.load("recover_scale").rows(bench.load("harness").Options(quick=True))
    assert joined.value > 0.0
    assert joined.peer_value > 3.0
    assert [row.unit for row in more] == (["%"] if (os.cpu_count() or 1) >= 4 else [])


@pytest.mark.usefixtures("mpirun")
def test_a_job_that_fails_shows_its_last_words():
    jobs = bench.load("jobs")
    with (
        pytest.raises(RuntimeError, match=r"(?s)ended with 1:.*no such thing"),
        jobs.started_ranks(1, ["python", "-c", "raise SystemExit('no such thing')"]) as job,
    ):
        job.wait(60.0)


def test_a_peer_that_is_not_there_has_a_row_that_says_why(monkeypatch):
    peers = bench.load("recover_peers")
    monkeypatch.setattr(peers, "library", lambda name: "not installed; pip install torchft")
    ours = {f"kill to the next round of both neighbours, {size}: median": 7.0 for size in peers.SIZES}
    rows = list(peers.rows(bench.load("harness").Options(), ours))
    assert {row.value for row in rows} == {7.0}
    assert all(row.peer.endswith(": not installed; pip install torchft") for row in rows)
    assert {row.peer_value for row in rows} == {None}


def test_what_a_peer_has_not_written_whole_does_not_count(tmp_path):
    path = tmp_path / "moments-0"
    moments = bench.load("recover_peers").moments
    assert moments(path) == []
    path.write_text("1.5 4\n2.25 3\n9.")
    assert moments(path) == [(1.5, 4), (2.25, 3)]
