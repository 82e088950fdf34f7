"""Which runs the heterogeneity table is made of, and how it stands beside the published one."""

from __future__ import annotations

import pickle

import pytest

from pydec import gossip
from pydec.cli import bench

suite, harness, publish = bench.load("suite_heterogeneity"), bench.load("harness"), bench.load("publish")
OPTIONS = harness.Options()


@pytest.fixture(scope="module")
def runs():
    base = suite.TrainConfig(suite.TASK, eval_every=1_000_000)
    return [suite._run(base, *case, OPTIONS) for case in suite._chosen(OPTIONS)]


def test_every_algorithm_has_a_line_but_d2_which_refuses_these_graphs(runs):
    assert runs[0].name == "allreduce"
    assert {run.name for run in runs} == set(gossip.algorithms) - {"d2"}
    for run in runs:
        rates = [config.lr for config in run.configs]
        assert rates == [rate * run.entry.rate_scale for rate in suite.RATES]
        assert pickle.loads(pickle.dumps(run.configs)) == run.configs  # they travel to other processes
        asynchronous = gossip.make(run.configs[0].algorithm).asynchronous
        assert (run.configs[0].eval_every == 1_000_000) is not asynchronous


def test_every_published_figure_stands_beside_one_line(runs):
    assert sorted(run.published for run in runs if run.published) == sorted(suite.PUBLISHED.values())


def test_order_and_distance_are_compared_by_the_worst_rank(runs):
    published = [run for run in runs if run.published is not None]
    rows = list(suite._beside_published([(run, run.published - 10) for run in published]))
    *behind, pairs = rows
    assert [row.name.rpartition(" ")[2] for row in behind] == ["ring", "one-peer-exponential"]
    assert [row.ratio for row in behind] == pytest.approx([1.0, 1.0])  # as far as published
    assert (pairs.value, pairs.peer_value, pairs.ratio) == (20, 20, 1.0)  # of 21, one pair is level
    assert all(publish.target_of(row.as_dict()).ratio == 1.0 for row in rows)

    turned = [(run, 70.0 if run.name == "allreduce" else 100 - run.published) for run in published]
    assert list(suite._beside_published(turned))[-1].ratio < 0.5


def test_a_run_on_the_local_cluster_gives_what_a_row_needs(runs, tmp_path):
    suite.write_first({"train": 300, "t10k": 100}, tmp_path)
    dpsgd = next(run for run in runs if run.name == "dpsgd")
    config = suite.replace(dpsgd.configs[0], task=suite.QUICK_TASK, data=str(tmp_path), steps=2, alpha=0.1)
    found = suite._train(config, 4)
    assert found["steps"] == 2
    assert 0.0 <= found["worst_rank"]["accuracy"] <= 1.0


def test_a_rate_that_diverges_has_learned_nothing(runs, tmp_path):
    suite.write_first({"train": 300, "t10k": 100}, tmp_path)
    dpsgd = next(run for run in runs if run.name == "dpsgd")
    wild = {"task": suite.QUICK_TASK, "data": str(tmp_path), "steps": 6, "alpha": 0.1, "lr": 1e30}
    found = suite._train(suite.replace(dpsgd.configs[0], **wild), 2)
    assert (found["steps"], found["accuracy"], found["worst_rank"]["accuracy"]) == (0, 0.0, 0.0)
