"""Sweeps: every scenario once, in processes, and only what is not there yet."""

from __future__ import annotations

import csv
import json

import pytest

from pydec.errors import ConfigError
from pydec.simulate import plots, sweep
from pydec.simulate.scenario import Scenario
from pydec.simulate.sweep import Cell
from pydec.train.config import TrainConfig


def cells(*graphs, peers=8):
    return [
        Cell(
            {"topology": graph, "peers": str(n)},
            Scenario(n, TrainConfig("", topology=graph, steps=4), vectors=4),
        )
        for graph in graphs
        for n in (peers, 2 * peers)
    ]


@pytest.mark.timeout(240)
def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    asked = cells("ring", "base-k")
    seen = []
    first = sweep.sweep(asked[:2], tmp_path, 2, lambda done, result: seen.append((done, result is None)))
    assert seen == [(0, True), (1, False), (2, False)]
    again = sweep.sweep(asked[:2], tmp_path, 2, lambda done, result: seen.append((done, result is None)))
    assert seen[3:] == [(2, True)]
    assert [result.summary for result in again] == [result.summary for result in first]

    done = []

    def note(todo, jobs):
        done.extend(todo)
        return iter(())

    monkeypatch.setattr(sweep, "_done", note)
    sweep.sweep(asked, tmp_path, 2, lambda done, result: None)
    assert done == asked[2:]
    (tmp_path / f"{asked[0].key}.json").write_text("{half")
    done.clear()
    sweep.sweep(asked[:2], tmp_path, 1, lambda done, result: None)
    assert done == asked[:1]


def test_a_cell_that_fails_says_why_and_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_done", lambda todo, jobs: ((cell, sweep.run_cell(cell)) for cell in todo))
    bad = Cell({"peers": "8"}, Scenario(8, TrainConfig("", steps=2), vectors=4, memory_bytes=10))
    (result,) = sweep.sweep([bad], tmp_path, 1, lambda done, result: None)
    assert "may be used here" in result.summary["error"]
    assert not list(tmp_path.glob("*.json"))


def test_the_table_and_pictures(tmp_path):
    results = [sweep.run_cell(cell) for cell in cells("ring", "base-k")]
    rows = sweep.table(results, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["topology"] for row in read] == ["ring", "ring", "base-k", "base-k"]
    assert [row["peers"] for row in read] == ["8", "16", "8", "16"]
    assert float(read[2]["consensus_distance"]) == rows[2]["consensus_distance"]
    plots.curves({str(result.label): result.rows for result in results}, tmp_path / "curves.png")
    assert plots.against(results, "peers", tmp_path / "peers.png")
    assert not plots.against(results, "topology", tmp_path / "topology.png")
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["curves.png", "peers.png"]
    with pytest.raises(ConfigError, match=r"ends in .png, .svg or .pdf, got x.gif"):
        plots.curves({}, tmp_path / "x.gif")


def test_keys_depend_on_what_is_simulated_alone():
    one, other = cells("ring")
    assert one.key != other.key
    assert one.key == Cell(one.label, Scenario(8, one.scenario.train, vectors=4, memory_bytes=5)).key
    assert json.dumps(one.key)
