"""What cannot be simulated costs one line, before any work."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from pydec.errors import ConfigError, SetupError
from pydec.simulate import memory, paces
from pydec.simulate.memory import Budget
from pydec.simulate.network import Network, duration_s, link
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario, liars_of
from pydec.train.config import TrainConfig
from tests.simulate.toy import BLOBS


def scenario(peers=8, *, train=None, **world):
    return Scenario(peers, TrainConfig(BLOBS, **(train or {})), **world)


@pytest.mark.parametrize(
    ("world", "words"),
    [
        ({"peers": 0}, r"--peers must be in \[1, 1,000,000\], got 0"),
        ({"step_s": -1.0}, "--step must be at least 0 seconds"),
        ({"churn": "-0.1"}, r"--churn must be a chance in \[0, 1\) for each step, got -0.1"),
        ({"churn": "0.1,2"}, r"JOIN must be a chance in \[0, 1\], got 2"),
        ({"churn": "often"}, "--churn must be LEAVE or LEAVE,JOIN"),
        ({"link": "fast"}, "--link must be RATE or UP/DOWN"),
        ({"link": "0mbit"}, "--link must be RATE"),
        ({"link": "1mbit,20"}, "must be a time such as 20ms"),
        ({"stragglers": "nosuch:1"}, "unknown stragglers 'nosuch'; known: lognormal, none, slow, speeds"),
        ({"stragglers": "lognormal:-1"}, "lognormal.sigma must be at least 0"),
        ({"stragglers": "slow:0.1,2,3"}, "slow takes share, factor"),
        ({"gradients": "some"}, "--gradients must be each, batched or auto"),
        ({"train": {"topology": "nosuch"}}, "unknown topology 'nosuch'"),
        ({"train": {"algorithm": "nosuch"}}, "unknown algorithm 'nosuch'"),
        ({"train": {"algorithm": "allreduce"}}, "runs algorithms that gossip"),
        ({"train": {"algorithm": "adsgd", "topology": "ring"}, "churn": "0.1"}, "are simulated in rounds"),
        ({"train": {"algorithm": "adsgd", "topology": "ring"}, "late_s": 0.1}, "are simulated in rounds"),
        ({"train": {"compressor": "auto"}}, "use compressor='none'"),
        ({"train": {"mixing": "adaptive", "algorithm": "dpsgd:order=atc"}}, "fixed:rounds=N"),
        ({"train": {"topology": "hierarchical"}}, "made of nodes, which virtual peers are not on"),
        ({"train": {"topology": "hypercube"}, "churn": "0.1"}, "--churn changes the number of peers"),
        (
            {"train": {"algorithm": "sparseloco", "topology": "complete", "local_steps": 2}, "churn": "0.1"},
            "needs every peer",
        ),
        (
            {"train": {"algorithm": "choco-peers", "compressor": "topk:fraction=0.1"}, "churn": "0.1"},
            r"--churn: .*cannot leave it out; use topology base-k:k=1",
        ),
        ({"train": {"byzantine": "8"}}, "leaves none of 8 ranks honest"),
        ({"train": {"byzantine": "3", "aggregate": "cs-plus:f=1", "topology": "complete"}}, "tolerates f=1"),
        ({"late_s": 1.0, "train": {"algorithm": "choco", "topology": "ring"}}, "late='drop'"),
        ({"vectors": 8, "train": {"algorithm": "dsgdm", "compressor": "none"}}, "vectors take none"),
    ],
)
@pytest.mark.filterwarnings("ignore::pydec.errors.RobustnessWarning")
def test_what_cannot_be_is_refused(world, words):
    with pytest.raises(ConfigError, match=words):
        scenario(**world)


def test_choco_takes_the_form_for_graphs_that_change():
    assert (
        scenario(train={"algorithm": "choco:gamma=0.1", "topology": "base-k"}).algorithm
        == "choco-peers:gamma=0.1"
    )
    assert scenario(train={"algorithm": "choco", "topology": "ring"}).algorithm == "choco"


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.1", "10"), (".25", "25"), ("3", "3"), ("1,5", "1,5"), ("", ""), ("0", ""), ("0.001", "")],
)
def test_liars_are_a_share_or_a_number_or_ranks(text, number):
    assert liars_of(text, 100) == number


@pytest.mark.parametrize("text", ["-0.1", "1.5", "some", "-3"])
def test_liars_that_are_no_number(text):
    with pytest.raises(ConfigError, match="--byzantine must be a share of the peers"):
        liars_of(text, 100)


def test_memory_is_planned_and_refused_with_the_number():
    with pytest.raises(SetupError, match=r"100,000 peers take 8\d\d MB of memory .*and 10 MB may be used"):
        Simulation(Scenario(100_000, TrainConfig(""), vectors=1024, memory_bytes=10_000_000))
    with pytest.raises(SetupError, match=r"use --peers \d+ or fewer, a smaller model, or --vectors"):
        Simulation(scenario(40, train={"batch_size": 2}, memory_bytes=500_000))
    assert "GB" in Budget(1000, {"model": 10_000_000}).words()
    assert 1e6 < memory.free_bytes() < 1 << 62


def test_peers_that_have_no_sample_are_refused():
    with pytest.raises(ConfigError, match="fewer ranks"):
        Simulation(scenario(500))


def test_a_scenario_goes_to_another_process():
    one = scenario(train={"topology": "base-k"}, churn="0.01")
    other = pickle.loads(pickle.dumps(one))
    assert other == one
    assert "plan" not in pickle.dumps(one).decode("latin1").split("train")[0]


def test_links_serve_one_message_after_the_other():
    network = Network(3, link("8mbit/4mbit,10ms"), 0)
    first, second = network.send(0, 1000, 0.0), network.send(0, 1000, 0.0)
    assert (first.gone_s, second.gone_s) == pytest.approx((0.001, 0.002))
    assert network.receive(1, 1000, first) == pytest.approx(0.010 + 0.002)
    assert network.receive(1, 1000, second) == pytest.approx(0.010 + 0.004)
    network.reset(0, 1.0)
    assert network.send(0, 1000, 1.0).gone_s == pytest.approx(1.001)


def test_jitter_is_drawn_from_the_seed():
    late = [
        [Network(2, link("8mbit,10ms,5ms"), seed).send(0, 0, 0.0).tail_s for _ in range(3)]
        for seed in (1, 1, 2)
    ]
    assert late[0] == late[1] != late[2]
    assert all(0.010 <= tail_s <= 0.015 for tail_s in late[0])


def test_times_have_units():
    assert [duration_s(word, "--x") for word in ("20ms", "1.5s", "200us")] == pytest.approx([0.02, 1.5, 2e-4])
    with pytest.raises(ConfigError, match="--x must be a time"):
        duration_s("20", "--x")


@pytest.mark.parametrize(
    "spec", ["none", "lognormal:0.5", "lognormal:sigma=0.5", "speeds:0.5", "slow:0.25,4"]
)
def test_paces_are_the_same_whenever_they_are_asked_for(spec):
    one, other = (paces.Paces(paces.make(spec), 0.1, 40, 5) for _ in range(2))
    steps = [one.seconds(step) for step in range(4)]
    assert all(np.array_equal(other.seconds(step), steps[step]) for step in (3, 0, 2, 1))
    assert all((factors > 0).all() for factors in steps)
    same = all(np.array_equal(steps[0], later) for later in steps)
    assert same == (not spec.startswith("lognormal"))
