"""Virtual time, deaths, newcomers, latecomers and liars."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pydec.errors import NonFiniteError
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.train.config import TrainConfig
from tests.simulate.toy import BLOBS

ATC = "dpsgd:order=atc"


def simulate(peers: int, keep: bool = False, vectors: int = 0, world=None, **options):
    options = {"steps": 6, "threads": 1, "compressor": "none", **options}
    train = TrainConfig("" if vectors else BLOBS, **options)
    return Simulation(Scenario(peers, train, vectors=vectors, **(world or {}))).run(keep=keep)


def test_a_round_takes_its_step_the_bytes_and_the_latency():
    world = {"link": "8mbit,20ms", "step_s": 0.1}  # 1 MB/s
    outcome = simulate(4, algorithm=ATC, topology="one-peer-exponential", world=world)
    message = outcome.summary["bytes_sent"] / (4 * 6)
    assert outcome.summary["virtual_s"] == pytest.approx(6 * (0.1 + 0.02 + message / 1e6))
    assert outcome.summary["waited_s"] == pytest.approx(6 * (0.02 + message / 1e6))


def test_packets_of_cta_hide_behind_the_gradient():
    world = {"link": "8mbit,20ms", "step_s": 0.1}
    hidden = simulate(4, algorithm="dpsgd:order=cta", world=world).summary
    message = hidden["bytes_sent"] / (4 * 7)  # one round more: the first is not hidden
    assert hidden["virtual_s"] == pytest.approx(6 * 0.1 + 2 * (0.02 + message / 1e6))


def test_the_slower_direction_of_a_link_decides():
    times = [
        simulate(8, vectors=1000, world={"link": link, "late_s": 9.0}).summary["virtual_s"]
        for link in ("8mbit/80mbit", "80mbit/8mbit", "8mbit/8mbit")
    ]
    assert times[0] == pytest.approx(times[1], rel=0.05)
    assert times[2] == pytest.approx(times[0], rel=0.05)  # cut-through: both directions at once


def test_stragglers_hold_up_those_who_wait_and_are_drawn_from_the_seed():
    slow = [
        simulate(8, world={"step_s": 0.1, "stragglers": "slow:0.25,4"}).summary["virtual_s"] for _ in range(2)
    ]
    assert slow[0] == slow[1] == pytest.approx(6 * 0.4, rel=0.2)
    first, second = (
        simulate(8, world={"step_s": 0.1, "stragglers": "lognormal:0.5"}, seed=seed).summary["virtual_s"]
        for seed in (1, 2)
    )
    assert first != second


def test_a_round_goes_on_without_those_who_are_late():
    world = {"step_s": 0.1, "stragglers": "slow:0.25,10"}
    waiting = simulate(8, algorithm=ATC, topology="complete", world=world).summary
    dropping = simulate(8, algorithm=ATC, topology="complete", world={**world, "late_s": 0.05}).summary
    assert dropping["late"] > 0
    assert waiting["late"] == 0
    assert dropping["waited_s"] < 0.5 * waiting["waited_s"]


@pytest.mark.parametrize("algorithm", [ATC, "dpsgd:order=cta", "choco-peers", "gradient-tracking", "diloco"])
def test_members_die_and_others_take_their_places(algorithm):
    world = {"churn": "0.05", "era_rounds": 3, "step_s": 0.1, "link": "10mbit,5ms"}
    options = {
        "topology": "base-k",
        "algorithm": algorithm,
        "steps": 20,
        "local_steps": 1 + 2 * (algorithm == "diloco"),
    }
    first, second = (simulate(20, world=world, keep=True, **options) for _ in range(2))
    found = first.summary
    assert found["died"] > 3
    assert found["joined"] > 0
    assert found["finished"] == 20 - found["died"] + found["joined"]
    assert found["accuracy"] > 0.7
    assert first.rows == second.rows
    assert all(np.array_equal(first.models[rank], second.models[rank]) for rank in first.models)
    assert {row["peers"] for row in first.rows} != {20}


def test_nobody_joins_where_nobody_may():
    found = simulate(12, world={"churn": "0.1,0", "era_rounds": 2}, steps=8, algorithm=ATC).summary
    assert found["joined"] == 0
    assert found["finished"] == 12 - found["died"] < 12


def test_a_death_is_felt_until_it_is_known():
    world = {"churn": "0.03,0", "step_s": 0.1, "era_rounds": 50}
    soon, late = (
        simulate(
            16, world={**world, "detect_s": detect_s}, topology="ring", algorithm=ATC, steps=10, seed=1
        ).summary
        for detect_s in (0.0, 2.0)
    )
    assert soon["died"] == late["died"] > 0
    assert soon["virtual_s"] == pytest.approx(1.0)
    assert 2.0 < late["virtual_s"] < 1.0 + 2.0 * late["died"]


@pytest.mark.filterwarnings("ignore::pydec.errors.RobustnessWarning")
def test_liars_move_plain_gossip_and_hardly_a_robust_rule():
    options = {"topology": "complete", "byzantine": "2", "attack": "sign-flip:scale=5", "steps": 30}
    plain = simulate(9, algorithm=ATC, **options).summary
    robust = simulate(9, aggregate="nnm+trimmed-mean", **options).summary
    assert plain["liars"] == robust["liars"] == 2
    assert robust["accuracy"] > 0.8
    assert plain["accuracy"] < 0.7


def test_liars_pose_where_packets_are_not_the_models():
    options = {"algorithm": "choco", "topology": "ring", "compressor": "topk:fraction=0.5", "steps": 20}
    honest = simulate(8, **options).summary
    lying = simulate(8, byzantine="2", attack="sign-flip:scale=5", **options).summary
    assert lying["loss"] > 1.1 * honest["loss"]


def test_many_peers_learn_as_one_batch():
    outcome = simulate(40, batch_size=4, steps=40)
    assert outcome.summary["accuracy"] > 0.8
    assert [row["step"] for row in outcome.rows] == [*range(1, 41)]
    assert all(math.isfinite(row["loss"]) for row in outcome.rows)


def test_a_gradient_that_is_no_number_ends_it():
    for peers in (4, 20):
        config = TrainConfig(f"{BLOBS}:bad=true", steps=3, batch_size=4)
        with pytest.raises(NonFiniteError, match="lower the learning rate"):
            Simulation(Scenario(peers, config)).run()
