from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make
from pydec.topology.random_matching import RandomMatching


@pytest.mark.parametrize("size", [2, 7, 8, 33])
def test_partners_are_mutual_and_only_odd_sizes_leave_one_idle(size):
    topology = RandomMatching(size, seed=5)
    for round in range(20):
        partners = topology.partners(round)
        np.testing.assert_array_equal(partners[partners], np.arange(size))
        assert np.count_nonzero(partners == np.arange(size)) == size % 2


def test_depends_only_on_seed_and_round():
    first, second = RandomMatching(20, seed=1), RandomMatching(20, seed=1)
    expected = [first.partners(t).copy() for t in range(30)]
    for t in reversed(range(30)):
        np.testing.assert_array_equal(second.partners(t), expected[t])
    assert any(np.any(RandomMatching(20, seed=2).partners(t) != expected[t]) for t in range(3))


def test_draws_these_pairs_on_every_machine():
    topology = RandomMatching(8, seed=2**200 + 1)
    assert [topology.partners(t).tolist() for t in (0, 1, 10**9)] == [
        [5, 4, 3, 2, 1, 0, 7, 6],
        [3, 2, 1, 0, 6, 7, 4, 5],
        [7, 4, 6, 5, 1, 3, 2, 0],
    ]


@pytest.mark.parametrize("size", [5, 6])
def test_every_pair_is_equally_likely(size):
    topology = RandomMatching(size, seed=0)
    rounds = 6000
    met = np.zeros((size, size))
    for t in range(rounds):
        met[np.arange(size), topology.partners(t)] += 1
    np.testing.assert_allclose(
        met[~np.eye(size, dtype=bool)] / rounds, topology.messages_per_round / (size - 1), atol=0.025
    )


@pytest.mark.parametrize(("size", "factor"), [(4, 2 / 6), (16, 14 / 30), (38, 36 / 74), (5, 0.5), (17, 0.5)])
def test_squared_disagreement_falls_by_the_expected_factor(size, factor):
    topology = make("random-matching", size, seed=11)
    assert (1 - topology.spectral_gap()) ** 2 == pytest.approx(factor)
    x = np.random.default_rng(size).standard_normal((size, 200))
    x -= x.mean(axis=0)
    after = [np.sum((topology.weights(t) @ x) ** 2) for t in range(300)]
    assert np.mean(after) / np.sum(x**2) == pytest.approx(factor, rel=0.02)


@pytest.mark.parametrize("seed", [-1, 2**256])
def test_refuses_a_seed_outside_its_range(seed):
    with pytest.raises(ConfigError, match=r"seed must be in \[0, 2\^256\)"):
        make("random-matching", 4, seed=seed)
