"""A few hundred seeds of everything at once; ten thousand with ``-m slow``."""

from __future__ import annotations

import pytest

from pydec.consensus.simulator.campaign import STYLES, build, play
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import World


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("size", [4, 5, 7, 10])
def test_seeds(size, style):
    for seed in range(100 // size):
        play(build(seed, size, style))


FOUND = [
    (10053, 4, "mutations"),  # a right header over other transactions stopped a node
    (2052, 4, "targeted"),  # who had entered a round by a liar's TIMEOUT told of it without the certificate
]


@pytest.mark.parametrize(("seed", "size", "style"), FOUND)
def test_seeds_that_once_failed(seed, size, style):
    play(build(seed, size, style))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tables_that_tolerate_no_fault_but_crashes(size):
    for seed in range(20):
        play(build(seed, size, "crashes"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("style", STYLES)
def test_many_seeds(style):
    for seed in range(2500):
        play(build(seed, 4, style))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_256_validators_agree_with_a_crashed_leader_and_84_silent_ones():
    world = World([1] * 256, seed=1, pace_s=1.0)
    for node in range(172, 256):
        world.corrupt(node, lambda place, target, data: ())
    world.start()
    world.run(0.5)
    world.crash(world.places[world.genesis.leader])
    first = next(place for place in world.honest() if place.replica is not None)
    world.submit(first.number, note(0))
    running = [place for place in world.honest() if place.replica is not None]
    assert world.run(world.now + 60.0, lambda: all(place.storage.head == 1 for place in running))
