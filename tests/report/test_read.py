"""What is read of run directories, whole ones, live ones and none."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.report.read import read
from pydec.report.series import POINTS, evaluated, events, links, moment, timeline, training

from .made import made


def test_a_run_is_read_whole(tmp_path):
    run = read(made(tmp_path / "r", steps=40))
    assert (run.name, run.status, sorted(run.ranks), run.left_out) == ("r", "done", [0, 1, 2, 3], 0)
    assert [len(record) for record in run.ranks.values()] == [40] * 4
    assert [row["accuracy"] for row in run.evaluations] == [0.5, 1.0]
    assert run.scores == ("loss", "accuracy")
    assert run.option("topology") == "ring"


def test_curves_are_means_over_ranks_and_pieces(tmp_path):
    run = read(made(tmp_path / "r", steps=40))
    curve = training(run, "loss")
    steps = np.arange(1, 41)
    np.testing.assert_allclose(curve.x["step"], steps)
    np.testing.assert_allclose(curve.y, np.exp(-steps / 40) + 0.015)
    np.testing.assert_allclose(curve.x["time_s"], 0.1 * steps)
    np.testing.assert_allclose(curve.x["bytes"], 4 * 1e-3 * steps)
    score = evaluated(run, "accuracy")
    np.testing.assert_allclose(score.x["step"], [20, 40])
    assert moment(run, 15) == pytest.approx(1.5)


def test_long_curves_are_thinned(tmp_path):
    curve = training(read(made(tmp_path / "r", steps=5000, ranks=2)), "loss")
    assert len(curve.y) == POINTS
    assert curve.x["step"][0] == pytest.approx(10.5)


def test_a_timeline_weighs_steps_by_the_part_in_a_bin(tmp_path):
    run = read(made(tmp_path / "r", steps=40, dies=1))
    values, end_s = timeline(run, lambda record: record.columns["wait_s"], bins=10)
    assert end_s == pytest.approx(4.0)
    np.testing.assert_allclose(values[2], 0.0125)
    np.testing.assert_allclose(values[1, :5], 0.00625)
    assert np.isnan(values[1, 5:]).all()


def test_links_and_events(tmp_path):
    run = read(made(tmp_path / "r", steps=40, dies=1))
    sent = links(run)
    assert sent[0].tolist() == [0, 24000, 0, 16000]
    assert sent[1].tolist() == [8000, 0, 12000, 0]
    found = [(event.kind, event.step) for event in events(run)]
    assert found == [("epoch", 0), ("lost", 20), ("epoch", 22), ("evicted", 22), ("checkpoint", 40)]
    assert events(run)[-1].words == "certified checkpoint"


def test_a_live_run_has_cut_lines_and_no_summary(tmp_path):
    path = made(tmp_path / "r", done=False)
    with (path / "metrics/rank-0.jsonl").open("a") as file:
        file.write('{"kind":"step","st')
    with (path / "metrics/rank-1.jsonl").open("a") as file:
        file.write('{"kind":"step","st\n')
        file.write(json.dumps({"kind": "step", "step": 41, "time_s": 4.1, "loss": None}) + "\n")
    run = read(path)
    assert (run.status, run.left_out) == ("running", 1)
    assert np.isnan(run.ranks[1].columns["loss"][-1])
    assert len(training(run, "loss").y) == 40
    assert [event.kind for event in events(run)] == ["checkpoint"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: (path / "config.json").unlink(), "is no run directory"),
        (lambda path: (path / "config.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "config.json").write_text("[]"), "no JSON object"),
        (lambda path: (path / "config.json").write_text('{"pydec": 99}'), "newer pydec"),
        (lambda path: [file.unlink() for file in (path / "metrics").iterdir()], "no step on record yet"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, spoil, words):
    path = made(tmp_path / "r")
    spoil(path)
    with pytest.raises(ConfigError, match=words):
        read(path)
