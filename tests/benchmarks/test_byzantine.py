"""The table of attacks: a cell does what it says, is written down, and is not run twice."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.cli import bench
from pydec.errors import ConfigError

suite, runs, harness = bench.load("suite_byzantine"), bench.load("byzantine_run"), bench.load("harness")
graphs, peers = bench.load("byzantine_graphs"), bench.load("byzantine_peers")
models, server = bench.load("byzantine_models"), bench.load("byzantine_server")


@pytest.fixture(scope="module")
def data():
    """Ten classes, each bright in pixels of its own."""
    draw = np.random.default_rng(0)

    def part(count):
        labels = draw.integers(10, size=count)
        images = 0.3 * draw.standard_normal((count, 196)).astype(np.float32)
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


def test_liars_that_send_nothing_are_not_heard(data):
    found = runs.run(cell(attack="absent", liars=2), data)
    assert found["worst"] > 90
    assert found["averaged"] != runs.run(cell(liars=2), data)["averaged"] or found["distance"] > 0


def test_a_cell_repeats_bit_for_bit(data):
    case = cell(rule="median", attack="gaussian", steps=5, alpha=1.0)
    assert runs.run(case, data) == runs.run(case, data)


@pytest.mark.parametrize("name", models.MODELS)
def test_gradients_are_those_of_the_cross_entropy(name):
    model = models.MODELS[name]
    draw = np.random.default_rng(1)
    x = (model.start() + 0.01 * draw.standard_normal((2, model.size))).astype(np.float32)
    images, labels = draw.standard_normal((2, 3, 196)).astype(np.float32), draw.integers(10, size=(2, 3))
    found = model.gradients(x, images, labels)
    assert found.shape == x.shape
    for k, place in ((0, 5), (1, model.size - 5), (1, model.size // 2)):
        step = np.zeros(model.size, np.float32)
        step[place] = 1e-3
        slope = model.loss(x[k] + step, images[k], labels[k]) - model.loss(x[k] - step, images[k], labels[k])
        assert found[k, place] == pytest.approx(slope / 2e-3, abs=2e-3)
    logits = model.logits(x[0], images[0]).astype(float)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert model.loss(x[0], images[0], labels[0]) == pytest.approx(-np.log(share[range(3), labels[0]]).mean())
    assert model.accuracy(x[0], images[0], logits.argmax(axis=1)) == 100
    assert model.accuracy(np.full_like(x[0], np.nan), images[0], labels[0]) == 0


def test_the_cnn_is_trained_by_all_ranks_together(data):
    assert (
        runs.run(cell(model="cnn", rule="spectral-filter", attack="sign-flip", steps=60), data)["worst"] > 80
    )


def test_a_rule_that_never_answers_has_nothing_right(data, monkeypatch):
    class Silent(peers.Foreign):  # type: ignore[name-defined,misc]  # loaded by name
        def check(self, topology, compressor):
            pass

    def asleep(vectors):
        while True:
            pass

    monkeypatch.setattr(peers, "average", lambda rule, f: asleep)
    monkeypatch.setattr(peers, "PATIENCE_S", 0.05)
    monkeypatch.setattr(runs, "foreign", lambda rule, f: Silent(spec="byzfl caf", f=f))
    assert runs.run(cell(rule="byzfl caf"), data)["worst"] == 0.0


def test_liars_know_the_mean_of_an_answer_that_is_drawn(data, monkeypatch):
    asked = []

    class Drawn(peers.Foreign):  # type: ignore[name-defined,misc]  # loaded by name
        draws = True

        def check(self, topology, compressor):
            pass

    def mean(vectors):
        asked.append(len(vectors))
        return np.mean(vectors, axis=0)

    monkeypatch.setattr(peers, "average", lambda rule, f: mean)
    monkeypatch.setattr(runs, "foreign", lambda rule, f: Drawn(spec="byzfl caf", f=f))
    monkeypatch.setattr(runs, "Foreign", Drawn)
    case = cell(rule="byzfl caf", attack="sparse-alie", steps=1)
    runs.run(case, data)
    drawn = len(asked)
    monkeypatch.setattr(Drawn, "draws", False)
    asked.clear()
    runs.run(case, data)
    assert drawn - cell().ranks > 3 * (len(asked) - cell().ranks)


def test_rules_that_the_graph_breaks_have_no_row():
    assert not suite._fits(cell(rule="krum", graph="ring", ranks=8))
    assert suite._fits(cell(rule="cs-plus"))
    with pytest.raises(ConfigError, match="krum"):
        cell(rule="krum", graph="ring", ranks=8).check()


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """Cells that were asked for, of a suite of one graph and split; none is run."""
    monkeypatch.chdir(tmp_path)
    cells = []

    def found(case):
        cells.append(case)
        lost = {"none": 0, "alie": 9}.get(case.attack, 1) * (1 + (case.rule == "median"))
        return {
            "averaged": 80.0 + case.seed - lost,
            "worst": 70.0,
            "each": 75.0,
            "distance": 0.1,
            "halves": [1, 2],
        }

    monkeypatch.setattr(suite, "run", found)
    monkeypatch.setattr(suite, "GRAPHS", {"complete": ("complete", 2)})
    monkeypatch.setattr(suite, "SPLITS", {"iid": 0.0, "Dirichlet 1": 1.0})
    monkeypatch.setattr(suite, "WHOLE", {"complete, iid": ("dpsgd", "spectral-filter", "median")})
    monkeypatch.setattr(suite, "SEEDS", 3)
    monkeypatch.setattr(suite, "DEFAULTS", ("spectral-filter",))
    monkeypatch.setattr(suite, "PEERS_SETTING", "")
    monkeypatch.setattr(suite, "CNN", ())
    monkeypatch.setattr(suite, "cost", lambda options: iter(()))
    monkeypatch.setattr(suite.byzantine_published, "rows", lambda run, options: iter(()))
    monkeypatch.setattr(suite.byzantine_server, "rows", lambda run, options: iter(()))
    return cells


def test_cells_are_written_and_not_run_again(ran):
    first = [row.as_dict() for row in suite.rows(harness.Options())]
    attacks = len(suite.ATTACKS)
    absent, elsewhere = 3, 3 * 2  # liars that send nothing; plain gossip where it is not attacked
    assert len(ran) == (3 + 3 + 3) * attacks + absent + elsewhere + 3 * attacks
    again = [row.as_dict() for row in suite.rows(harness.Options())]
    assert again == first
    assert len(ran) == 12 * attacks + absent + elsewhere


def test_a_row_is_a_rule_and_the_summary_says_what_the_worst_attack_costs(ran):
    rows = {row.name: row for row in suite.rows(harness.Options())}
    rule = rows["complete, iid: spectral-filter"]
    assert (rule.value, rule.peer_value, rule.ratio) == (72.0, 81.0, None)
    assert rule.params["none"] == "81.0 (worst 70.0)"
    lost = rows["complete, iid: points lost to the worst attack, spectral-filter"]
    assert (lost.value, lost.peer_value) == (9.0, 2.0)
    assert lost.ratio == pytest.approx(2 / 9)
    assert (lost.params["default"], lost.params["worst_attack"], lost.params["f"]) == (True, "alie", 2)
    beside = rows["complete, iid: worst case, spectral-filter"]
    assert (beside.peer, beside.peer_value) == ("ByzFL median, best of other libraries", 63.0)
    assert "complete, Dirichlet 1: dpsgd" not in rows
    assert "complete, Dirichlet 1: points lost to the worst attack, spectral-filter" in rows
    assert "complete, Dirichlet 1: worst case, spectral-filter" not in rows


def test_the_cnn_has_rows_of_its_own(ran, monkeypatch):
    monkeypatch.setattr(suite, "CNN", ("complete, iid",))
    rows = {row.name: row for row in suite.rows(harness.Options(only="iid, CNN"))}
    assert {
        "complete, iid, CNN: spectral-filter",
        "complete, iid, CNN: points lost to the worst attack, spectral-filter",
    } <= {*rows}
    assert {(case.model, case.steps, case.lr) for case in ran} == {("cnn", 200, 0.05)}


def test_a_part_can_be_asked_for(ran):
    (row,) = suite.rows(harness.Options(only="iid: spectral-filter"))
    assert (row.name, row.peer_value) == ("complete, iid: spectral-filter", 81.0)
    assert {(case.rule, case.attack) for case in ran if case.rule != "spectral-filter"} == {
        ("dpsgd", "none"), ("dpsgd", "absent"),
    }  # fmt: skip


@pytest.mark.parametrize("graph", list(graphs.GRAPHS))
def test_graphs_of_published_tables_have_their_liars(graph):
    made, liars = graphs.GRAPHS[graph]()
    weights = made.weights(0)
    np.testing.assert_allclose(weights, weights.T)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    honest = [rank for rank in range(made.size) if rank not in liars]
    heard = [len({*made.neighbors(rank, 0)} & {*liars}) for rank in honest]
    expected = {"ring, 2 liars each": [2] * 5, "ring, 2 liars each and 1 more": [3, 2, 2, 2, 2]}
    if graph in expected:
        assert heard == expected[graph]
    elif graph.startswith("bridge"):
        weight = float(graph.rpartition(" ")[2])
        assert weights[4, -1] == (weight if liars else 0.125 * 0)
        assert sum(heard) == (2 if weight else 0)


def test_published_settings_run(data):
    case = cell(rule="ubar", graph="ring, 2 liars each", ranks=15, attack="alie:z=10", f=2, steps=5)
    assert runs.run(case, data)["averaged"] > 0
    halves = cell(rule="gts", graph="two cliques of 10", ranks=20, alpha=-1.0, f=1, steps=5)
    assert len(runs.run(halves, data)["halves"]) == 2
    labels = data[0][1]
    for rank, share in enumerate(runs._shares(halves, labels, list(range(20)))):
        assert {*labels[share]} == set(range(5) if rank < 10 else range(5, 10))


def test_workers_of_a_server_have_few_classes_each_and_learn_together(data):
    shares = server.shares_of(data[0][1])
    assert all(len({*data[0][1][share]}) <= 2 for share in shares[:20])
    assert len(shares[-1]) == len(data[0][1])
    assert server.run(server.Served("mean:f=0", "none", steps=40), data)["averaged"] > 90
    again = server.run(server.Served("krum", "mimic", steps=4), data)
    assert again == server.run(server.Served("krum", "mimic", steps=4), data)


def test_every_published_figure_of_the_server_has_a_row():
    asked = []

    def once(cell, by):
        asked.append(cell)
        return {"averaged": 50.0}

    rows = list(server.rows(once, harness.Options()))
    beside = [row.peer_value for row in rows if row.peer]
    assert beside == [x for pair in server.PUBLISHED.values() for way in pair for x in way]
    assert len({row.name for row in rows}) == len(rows) == len({cell.key for cell in asked})


@pytest.mark.parametrize("rule", peers.RULES)
def test_rules_of_other_libraries_mix_or_say_that_they_are_not_there(data, rule):
    case = cell(rule=rule, steps=3)
    if peers.available(rule):
        assert runs.run(case, data)["distance"] >= 0
    else:
        with pytest.raises(ConfigError, match="not installed"):
            case.check()
    with pytest.raises(ConfigError, match="there are byzfl krum"):
        peers.foreign("byzfl magic", 1)
