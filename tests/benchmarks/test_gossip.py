"""The suite ``gossip``: its rows say what was measured, and its programs check what they time."""

from __future__ import annotations

import importlib.util

import pytest

from pydec.cli import bench
from pydec.gossip.switch import Switch

suite, harness, publish = bench.load("suite_gossip"), bench.load("harness"), bench.load("publish")
SECONDS = {
    "none": 0.1,
    "int8": 0.2,
    "auto": 0.1,
    "auto, trials included": 0.105,
    "ranks that compress": 0,
    "Allreduce": 0.3,
    "Sendrecv + average": 0.1,
}


def rows_by_peer(rows):
    return {(row.name, row.peer): row for row in rows}


def test_auto_is_charged_for_its_trials_and_held_against_no_compression():
    rows = rows_by_peer(suite._compared("round at 1gbit", SECONDS, {"net": "1gbit"}))
    auto = rows["round at 1gbit, auto", "none"]
    assert auto.value == pytest.approx(105)
    assert auto.ratio == pytest.approx(0.1 / 0.105)
    assert publish.target_of(auto.as_dict()).ratio == pytest.approx(1 / 1.1)
    assert rows["round at 1gbit, int8", "none"].ratio == pytest.approx(0.5)
    assert ("round at 1gbit, none", "none") not in rows


@pytest.mark.parametrize("period", [0, 2, 8])
def test_a_trial_is_one_part_in_sixty_four_of_the_rounds(period):
    switch = Switch(period)
    assert switch.every == 64 * switch.trial
    places = [switch._place(round)[0] for round in range(switch.every)]
    assert places[: switch.trial] == [0] * (switch.trial // 2) + [1] * (switch.trial // 2)
    assert set(places[switch.trial :]) == {None}


def test_a_step_stands_beside_every_peer_that_ran_and_says_who_did_not(monkeypatch, capsys):
    seconds = {"alone": 0.05, "Sendrecv + average": 0.08, "none": 0.08, "int8": 0.07, "DDP over gloo": 0.16}
    found = {"seconds": seconds, "left_out": {"hivemind": "not installed"}, "parameters": 5}
    monkeypatch.setattr(suite, "measured", lambda *words: found)
    rows = rows_by_peer(suite._steps(harness.Options()))
    assert len(rows) == 2 * 3
    assert rows["step, int8", "DDP over gloo"].ratio == pytest.approx(16 / 7)
    assert publish.target_of(rows["step, none", "Sendrecv + average"].as_dict()).ratio == pytest.approx(
        1 / 1.1
    )
    assert publish.target_of(rows["step, none", "alone"].as_dict()) is None
    assert "hivemind left out: not installed" in capsys.readouterr().err


def test_links_are_left_out_with_the_reason_where_hosts_cannot_be_made(monkeypatch, capsys):
    monkeypatch.setattr(suite, "missing", lambda: "needs root")
    assert list(suite._over_links(["1gbit"], harness.Options())) == []
    assert "rounds over links left out: needs root" in capsys.readouterr().err


@pytest.mark.usefixtures("mpirun")  # that is: not inside mpirun
@pytest.mark.timeout(240)
def test_every_method_that_is_here_holds_the_ranks_together():
    found = bench.load("jobs").measured(4, "gossip_step.py", 64, 1, 4)  # raises where they drift apart
    assert {"alone", "none", "int8", "DDP over gloo"} <= set(found["seconds"])
    missing = {name for name in ("decent_dp", "hivemind") if importlib.util.find_spec(name) is None}
    assert len({reason.partition(" ")[0] for reason in found["left_out"].values()}) == len(missing)


@pytest.mark.slow
@pytest.mark.usefixtures("mpirun")
@pytest.mark.timeout(600)
@pytest.mark.skipif(suite.missing() is not None, reason=str(suite.missing()))
def test_rounds_and_steps_between_hosts_are_measured():
    options = harness.Options(quick=True, net="1gbit", hosts=2, only="step")
    assert {row.name for row in suite.rows(options)} == {
        f"round at 1gbit, {c}" for c in ("none", "int8", "auto")
    }
    names = {row.name for row in bench.load("suite_train").rows(options)}
    assert names == {"step at 1gbit, computed by the processors", "step at 1gbit, computed by accelerators"}
