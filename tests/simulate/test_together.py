"""Models that learn in step: the bits, times and bytes of peers one by one."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import NonFiniteError
from pydec.simulate import batched
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.train.config import TrainConfig
from tests.simulate.toy import BLOBS

WORLD = {"link": "1mbit/2mbit,3ms", "step_s": 0.01, "gradients": "batched"}
CASES = [
    {"algorithm": "dpsgd"},
    {"algorithm": "dpsgd:order=atc", "topology": "ring", "optimizer": "sgd"},
    {"algorithm": "dpsgd", "topology": "base-k", "local_steps": 3},
    {"algorithm": "dpsgd:order=atc", "topology": "random-matching", "local_steps": 2, "clip_norm": 0.5},
]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_in_step_has_the_bits_times_and_bytes_of_one_by_one(monkeypatch, options, chunk):
    monkeypatch.setattr(batched, "_CHUNK_BYTES", chunk)
    config = TrainConfig(BLOBS, steps=8, threads=1, compressor="none", log_every=2, eval_every=4, **options)
    step, apart = (
        Simulation(Scenario(20, config, late_s=late_s, **WORLD))
        for late_s in (0.0, 1e6)  # a lateness that nobody reaches asks for peers one by one
    )
    assert step._in_step
    assert not apart._in_step
    mine, theirs = step.run(keep=True), apart.run(keep=True)
    for rank in range(20):
        assert np.array_equal(mine.models[rank], theirs.models[rank]), rank
    for name in ("bytes_sent", "finished", "accuracy"):
        assert mine.summary[name] == theirs.summary[name], name
    for name in ("virtual_s", "waited_s", "consensus_distance", "train_loss"):
        assert mine.summary[name] == pytest.approx(theirs.summary[name], rel=1e-5, abs=1e-6), name
    assert len(mine.rows) == len(theirs.rows) == 4
    for ours, row in zip(mine.rows, theirs.rows, strict=True):
        assert ours == pytest.approx(row, rel=1e-5, abs=1e-6)


def test_stragglers_are_waited_for_as_one_by_one():
    config = TrainConfig(BLOBS, steps=7, threads=1, compressor="none")
    world = {**WORLD, "stragglers": "lognormal:0.5"}
    mine, theirs = (Simulation(Scenario(20, config, late_s=late_s, **world)).run() for late_s in (0.0, 1e6))
    for name in ("virtual_s", "waited_s"):  # but that links receive in the order of rounds, not of arrival
        assert mine.summary[name] == pytest.approx(theirs.summary[name], rel=1e-2), name


def test_a_gradient_that_is_not_finite_names_its_peer():
    config = TrainConfig(f"{BLOBS}:bad=true", steps=2, threads=1, compressor="none")
    with pytest.raises(NonFiniteError, match="peer 0 "):
        Simulation(Scenario(20, config, **WORLD)).run()


def test_a_length_that_nobody_gives_is_long_enough_to_see_something():
    base = {"threads": 1, "compressor": "none"}
    lengths = [
        Simulation(Scenario(20, TrainConfig(BLOBS, **base, **given))).config.steps
        for given in ({}, {"epochs": 3.0}, {"steps": 2})
    ]
    assert lengths == [50, 3, 2]
