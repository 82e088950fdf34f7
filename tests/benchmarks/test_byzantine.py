"""The table of attacks: a cell does what it says, is written down, and is not run twice."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.cli import bench
from pydec.errors import ConfigError

suite, runs, harness = bench.load("suite_byzantine"), bench.load("byzantine_run"), bench.load("harness")


@pytest.fixture(scope="module")
def data():
    """Ten classes, each bright in pixels of its own."""
    draw = np.random.default_rng(0)

    def part(count):
        labels = draw.integers(10, size=count)
        images = 0.3 * draw.standard_normal((count, 784)).astype(np.float32)
        images[np.arange(count), 7 * labels] += 3
        return images, labels

    return part(600), part(200)


def cell(**more):
    given = {
        "rule": "dpsgd",
        "attack": "none",
        "graph": "complete",
        "ranks": 6,
        "liars": 1,
        "alpha": 0.0,
        "seed": 0,
    }
    return runs.Cell(**{**given, "steps": 40, "batch": 16, "lr": 0.05, **more})


def test_gossip_learns_and_one_liar_ends_that(data):
    assert runs.run(cell(), data)["worst"] > 90
    assert runs.run(cell(attack="sign-flip:scale=10"), data)["averaged"] < 50


@pytest.mark.parametrize("rule", ["cs-plus", "nnm+trimmed-mean"])
@pytest.mark.parametrize("attack", ["sign-flip:scale=10", "sparse-alie", "huge", "label-flip"])
def test_rules_survive(data, rule, attack):
    found = runs.run(cell(rule=rule, attack=attack), data)
    assert found["averaged"] > 90
    assert found["worst"] <= found["each"] + 1e-9


def test_a_cell_repeats_bit_for_bit(data):
    case = cell(rule="median", attack="gaussian", steps=5, alpha=1.0)
    assert runs.run(case, data) == runs.run(case, data)


def test_gradients_are_those_of_the_cross_entropy():
    draw = np.random.default_rng(1)
    x = draw.standard_normal((2, 7850)).astype(np.float32) * 0.01
    images, labels = draw.standard_normal((2, 3, 784)).astype(np.float32), draw.integers(10, size=(2, 3))

    def loss(row, k):
        logits = images[k].astype(float) @ row[:7840].reshape(784, 10) + row[7840:]
        logits -= logits.max(axis=1, keepdims=True)
        return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(3), labels[k]])

    found = runs._gradient(x, images, labels)
    for k, place in ((0, 5), (1, 7845), (1, 4000)):
        step = np.zeros(7850)
        step[place] = 1e-4
        slope = (loss(x[k] + step, k) - loss(x[k] - step, k)) / 2e-4
        assert found[k, place] == pytest.approx(slope, abs=1e-4)


def test_rules_that_the_graph_breaks_have_no_row():
    assert not suite._fits(cell(rule="krum", graph="ring", ranks=8))
    assert suite._fits(cell(rule="cs-plus"))
    with pytest.raises(ConfigError, match="krum"):
        cell(rule="krum", graph="ring", ranks=8).check()


def test_cells_are_written_and_not_run_again(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ran = []

    def found(case):
        ran.append(case)
        return {"averaged": 80.0 + case.seed, "worst": 70.0, "each": 75.0, "distance": 0.1}

    monkeypatch.setattr(suite, "run", found)
    monkeypatch.setattr(suite, "GRAPHS", {"complete": 2})
    monkeypatch.setattr(suite, "SPLITS", {"iid": 0.0})
    options = harness.Options(False, None, "", 4, "gts, alie")
    first, second = list(suite.rows(options))
    assert (first.name, first.value, first.peer) == ("complete, iid: dpsgd, none", 81.0, None)
    assert (second.name, second.ratio) == ("complete, iid: gts, alie", 1.0)
    assert second.params["worst_rank"] == 70.0
    assert len(ran) == 6
    again = list(suite.rows(options))
    assert [row.as_dict() for row in again] == [first.as_dict(), second.as_dict()]
    assert len(ran) == 6
