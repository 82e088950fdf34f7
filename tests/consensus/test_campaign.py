"""A few hundred seeds of everything at once; ten thousand with ``-m slow``."""

from __future__ import annotations

import pytest

from pydec.consensus.simulator.campaign import STYLES, build, play


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
