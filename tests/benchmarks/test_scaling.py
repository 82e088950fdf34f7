from __future__ import annotations

import math

import pytest

from pydec.cli import bench

suite = bench.load("suite_scaling")
checks = bench.load("plan_checks")
Options = bench.load("harness").Options


@pytest.mark.parametrize("only", ["cost", "rounds", "losses", "churn", "committee"])
def test_parts(only):
    found = list(suite.rows(Options(quick=True, only=only)))
    assert found
    assert all(math.isfinite(row.value) and row.suite == "scaling" for row in found)


def test_losses_cost_rounds_and_move_the_mean_and_without_any_it_stays():
    rows = [row for row in suite.rows(Options(quick=True, only="losses")) if "matching" in row.name]
    assert [row.params["lost"] for row in rows] == [0.0, 0.01, 0.1, 0.3]
    assert rows[0].params["mean_moved"] == pytest.approx(0, abs=1e-9)
    assert rows[0].value < rows[-1].value
    assert rows[-1].params["mean_moved"] > 0.05


def test_stale_newcomers_hold_everybody_back():
    rows = list(suite.rows(Options(quick=True, only="churn")))
    progress = [row.params["progress"] for row in rows]
    assert progress[0] == pytest.approx(1, abs=0.1)
    assert progress == sorted(progress, reverse=True)
    assert rows[0].value < rows[2].value


def test_predictions_are_those_of_the_plan(monkeypatch):
    steps = {"alone": {"step_s": 0.1, "bytes": 0.0}}
    for name in (*checks.GOSSIP, checks.REDUCED):
        steps[name] = {"step_s": 0.2, "bytes": 1e6}

    class Nowhere:
        def __init__(self, links):
            assert len(links) == 4

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(checks, "missing", lambda: None)
    monkeypatch.setattr(checks, "Lab", Nowhere)
    monkeypatch.setattr(checks, "measured", lambda *words, **more: steps)
    rows = list(checks.rows(Options(quick=True)))
    assert len(rows) == 2 * (len(checks.GOSSIP) + 1) + 1
    by_name = {row.name: row for row in rows}
    whole = by_name["bytes a step: float32, sent during the gradient"]
    assert whole.peer_value == pytest.approx(4e-6 * checks.ELEMENTS * 1514 / 1448, rel=1e-3)
    assert whole.params["off_percent"] == pytest.approx(100 * (whole.peer_value - 1), abs=0.1)
    slow = by_name["step: float32, sent during the gradient"]
    assert slow.peer_value == pytest.approx(32e3 * checks.ELEMENTS * 1514 / 1448 / 300e6, rel=0.1)
    assert rows[-1].value == max(abs(row.params["off_percent"]) for row in rows[:-1])
