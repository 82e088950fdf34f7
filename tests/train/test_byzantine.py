"""Who lies in a run, what the options mean together, and what comes of a run with liars."""

from __future__ import annotations

import contextlib
import json
import sys
import textwrap
import warnings

import pytest

from pydec import topology
from pydec.aggregate.attacks import attacks
from pydec.comm.local import LocalCluster
from pydec.errors import ConfigError, HeterogeneityWarning, RobustnessWarning
from pydec.optim import local
from pydec.peer import Peer
from pydec.train import job
from pydec.train.byzantine import most_heard, place, robustness
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.robust_options import with_momentum

RANKS = 6


CLOUDS = """
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import TensorDataset
    from pydec.train import Defaults, Task

    def clouds() -> Task:
        # Three of them in eight dimensions, which a linear model tells apart.
        draw = np.random.default_rng(0)
        centres = 2.5 * draw.standard_normal((3, 8))
        labels = draw.integers(3, size=1500)
        points = torch.from_numpy(draw.standard_normal((1500, 8)) + centres[labels]).float()
        y = torch.from_numpy(labels)
        return Task(
            model=torch.nn.Linear(8, 3),
            train=TensorDataset(points[:1200], y[:1200]),
            loss=cross_entropy,
            validation=TensorDataset(points[1200:], y[1200:]),
            metric=lambda a, b: (a.argmax(1) == b).float().mean(),
            defaults=Defaults(batch_size=16, lr=0.05, optimizer="sgd"),
        )
"""


@pytest.fixture(autouse=True)
def _clouds(tmp_path, monkeypatch):
    (tmp_path / "pydec_clouds.py").write_text(textwrap.dedent(CLOUDS))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pydec_clouds", raising=False)


def trained(path, ranks=RANKS, *, quietly=True, **options):
    """The summary of a run of ``clouds`` on a local cluster."""
    options.setdefault("steps", 30)
    config = TrainConfig(
        "pydec_clouds:clouds", topology=options.pop("topology", "complete"), threads=1, **options
    )

    def program(transport):
        with Peer(transport, signals=False) as peer:
            return job.run(peer, config, str(path), quiet=True)

    with reproducible(1), warnings.catch_warnings() if quietly else contextlib.nullcontext():
        if quietly:
            warnings.simplefilter("ignore", HeterogeneityWarning)
            warnings.simplefilter("ignore", RobustnessWarning)
        LocalCluster(ranks, deadline_s=1e9).run(program)
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("attack", list(attacks))
def test_a_robust_run_learns_under_every_attack(tmp_path, attack):
    compressor = "none" if attack in ("huge", "alie", "dissensus", "sparse-alie") else "int8"
    spec = {"stale": "stale:delay=5", "sign-flip": "sign-flip:scale=3"}.get(attack, attack)
    found = trained(tmp_path / "run", byzantine="2", attack=spec, aggregate="cs-plus", compressor=compressor)
    assert found["accuracy"] > 0.9
    assert found["worst_rank"]["accuracy"] > 0.9
    liars = found["byzantine"]["ranks"]
    assert len(liars) == 2
    assert found["worst_rank"]["rank"] not in liars
    left_out = found["byzantine"]["left_out"]
    if attack in ("nan", "huge"):
        assert sum(left_out.values()) > 50
    else:
        assert sum(left_out.values()) == 0


@pytest.mark.parametrize(
    "rule",
    ["gts", "nna", "ios", "nnm+trimmed-mean", "auto", "ubar", "bridge", "balance:gamma=2", "clipped-gossip"],
)
def test_rules_learn_under_a_strong_attack_and_plain_gossip_does_not(tmp_path, rule):
    attack = {"byzantine": "1,4", "attack": "sign-flip:scale=5"}
    assert trained(tmp_path / "robust", aggregate=rule, **attack)["accuracy"] > 0.9


def test_plain_gossip_is_broken_by_two_of_six(tmp_path):
    found = trained(tmp_path / "plain", byzantine="1,4", attack="sign-flip:scale=5")
    assert not found["accuracy"] > 0.7
    assert found["byzantine"]["rule"].startswith("DPSGD")


def test_random_pulls_survive_liars(tmp_path):
    found = trained(
        tmp_path / "run",
        12,
        byzantine="1",
        attack="alie",
        aggregate="rpel:horizon=60",
        topology="epidemic:s=6",
    )
    assert found["accuracy"] > 0.9


def test_without_liars_a_robust_run_counts_everybody(tmp_path):
    found = trained(tmp_path / "run", aggregate="cs-plus:f=1")
    assert found["accuracy"] > 0.9
    assert found["byzantine"]["ranks"] == []
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["options"]["optimizer"] == "sgd:momentum=0.9"  # by default in robust runs


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"alpha": 0.1, "aggregate": "cs-plus:f=1"}, True),
        ({"alpha": 0.1, "aggregate": "nnm+trimmed-mean:f=1"}, True),
        ({"aggregate": "cs-plus:f=1"}, False),
        ({"alpha": 0.1, "algorithm": "dpsgd"}, False),
    ],
)
def test_a_run_on_data_that_differ_tells_the_user_what_a_robust_rule_may_do(tmp_path, options, told):
    local._warned.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trained(tmp_path / "run", 4, steps=2, quietly=False, **options)
    local._warned.clear()
    found = [str(w.message) for w in caught if w.category is HeterogeneityWarning]
    assert any("cannot tell a liar from a rank whose data differ" in text for text in found) == told


def test_a_rule_that_destroys_consensus_is_told_in_numbers(tmp_path):
    """No liar, but data that hardly overlap: what the averaged model knows, single ranks do not."""
    options = {"alpha": 0.05, "steps": 40, "log_every": 5}
    apart = trained(tmp_path / "apart", aggregate="gts:f=2", topology="random-regular:degree=4", **options)
    found = apart["byzantine"]
    assert 0.3 < found["left_out_weight"] < 0.7  # half of four equal weights
    assert found["distance_growth"] > 0
    assert found["growth_since"] in (10, 20)
    assert apart["worst_rank"]["accuracy"] < apart["accuracy"]
    plain = trained(tmp_path / "plain", byzantine="1", algorithm="dpsgd:order=atc", **options)
    assert "left_out_weight" not in plain["byzantine"]
    sets = trained(tmp_path / "sets", aggregate="trimmed-mean:f=2", **options)
    assert sets["byzantine"]["left_out_weight"] is None


def asked(size=8, **options):
    config = TrainConfig("t", **options)
    return LocalCluster(size).run(lambda transport: robustness(config, Peer(transport, signals=False)))[0]


def test_liars_are_placed_where_honest_ranks_hear_the_fewest():
    ring = topology.make("ring", size=9)
    assert len(place("2", ring, 0)) == 2
    assert most_heard(topology.make("random-regular:degree=4", size=16), (0,)) == 1
    assert place("5,1,", ring, 0) == (1, 5)
    assert place("3", topology.make("epidemic:s=4", size=12), 0) == place(
        "3", topology.make("epidemic:s=4", size=12), 0
    )
    grid = topology.make("torus:rows=4", size=16)
    assert most_heard(grid, place("3", grid, 0)) == 1


def test_f_comes_from_the_graph_and_the_liars():
    found = asked(byzantine="2,5", aggregate="cs-plus", topology="complete")
    assert (found.f, found.algorithm.f) == (2, 2)
    assert found.connectivity == pytest.approx(6.0)
    assert "ranks 2, 5 send alie; an honest one hears at most 2" in found.words()
    assert "connectivity 6" in found.words()
    assert asked(byzantine="1", aggregate="auto", topology="complete").algorithm.name == "spectral-filter"
    assert asked(byzantine="3", aggregate="auto", topology="complete").algorithm.name == "cs-plus"
    assert asked(aggregate="nna:f=2", topology="complete").algorithm.f == 2
    assert asked(16, byzantine="2", aggregate="rpel", topology="epidemic:s=4").algorithm.f == 2
    assert asked(algorithm="dpsgd") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"byzantine": "two"}, "--byzantine must be a number"),
        ({"byzantine": "8"}, "leaves none of 8 ranks honest"),
        ({"byzantine": "3,9"}, "names ranks of 0 to 7"),
        ({"attack": "alie"}, "say how many there are: --byzantine N"),
        ({"byzantine": "1", "attack": "lie"}, "unknown attack 'lie'"),
        ({"aggregate": "mode"}, "unknown aggregator 'mode'"),
        ({"aggregate": "median", "algorithm": "choco"}, "give one of them"),
        ({"byzantine": "0,4", "aggregate": "clipped-gossip:radius=1", "topology": "ring"}, "cut ring of 8"),
        ({"byzantine": "1,2,3", "aggregate": "nna:f=1", "topology": "complete"}, "tolerates f=1 .* hears 3"),
        ({"byzantine": "1", "aggregate": "nna", "topology": "hierarchical"}, "averages nodes first"),
        ({"byzantine": "1", "attack": "spectral", "topology": "epidemic:s=4"}, "weakest cut.* changes from"),
        ({"byzantine": "1", "algorithm": "gradient-tracking"}, "send the models themselves"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_named(options, message):
    def found():
        made = asked(**options)
        return made.algorithm_of(made.ranks[0])

    with pytest.raises(ConfigError, match=message):
        found()


def test_momentum_is_added_to_sgd_only_where_nothing_is_said():
    assert with_momentum("sgd") == "sgd:momentum=0.9"
    assert with_momentum("sgd:weight_decay=0.1") == "sgd:weight_decay=0.1,momentum=0.9"
    assert with_momentum("sgd:momentum=0") == "sgd:momentum=0"
    assert with_momentum("adamw") == "adamw"
