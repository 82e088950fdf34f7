"""Asynchronous algorithms on virtual links."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.train.config import TrainConfig
from tests.simulate.toy import BLOBS

ALGORITHMS = ["adsgd", "ad-psgd", "ad-psgd:a2cid2=true"]
SLOW = {"link": "1mbit/2mbit,3ms", "step_s": 0.01, "stragglers": "slow:0.2,10"}


def config(algorithm: str, **options) -> TrainConfig:
    return TrainConfig(BLOBS, threads=1, algorithm=algorithm, topology="ring", **options)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("peers", "gradients"), [(5, "each"), (20, "batched")])
def test_all_come_to_their_end_and_learn_and_the_same_again(algorithm, peers, gradients):
    scenario = Scenario(peers, config(algorithm, steps=15), gradients=gradients, **SLOW)
    first, again = (Simulation(scenario).run(keep=True) for _ in range(2))
    assert first.summary["finished"] == peers
    assert first.summary["accuracy"] > 0.8
    assert first.summary["bytes_sent"] == again.summary["bytes_sent"] > 0
    for rank in range(peers):
        assert np.array_equal(first.models[rank], again.models[rank])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_nobody_waits_for_a_packet(algorithm):
    world = {"link": "1gbit,1s", "step_s": 0.01}
    rows = Simulation(Scenario(4, config(algorithm, steps=8, log_every=8), **world)).run().rows
    assert rows[-1]["time_s"] == pytest.approx(0.08)  # a hundredth of what one packet takes
    waiting = Simulation(Scenario(4, config("dpsgd", steps=8, log_every=8), **world)).run().rows
    assert waiting[-1]["time_s"] > 7.0


def test_averages_of_two_keep_the_mean():
    train = config("ad-psgd", steps=60, seed=3)
    world = {"vectors": 50, "link": "10mbit,2ms", "step_s": 0.01, "stragglers": "lognormal:0.5"}
    start = Simulation(Scenario(12, train, **world))
    start.learners.allocate()
    before = np.array(start.learners._x)
    after = Simulation(Scenario(12, train, **world)).run(keep=True)
    models = np.stack([after.models[rank] for rank in range(12)])
    assert models.mean(axis=0) == pytest.approx(before.mean(axis=0), abs=1e-5)
    assert np.abs(models - models.mean(axis=0)).max() < 0.1 * np.abs(before - before.mean(axis=0)).max()


def test_latest_copies_agree_and_a_slow_peer_holds_back_only_itself():
    train = config("adsgd", steps=200)
    found = Simulation(Scenario(8, train, vectors=20, **SLOW)).run()
    assert found.summary["consensus_distance"] < 1e-2
    assert found.summary["late"] == found.summary["died"] == 0
