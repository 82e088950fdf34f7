from __future__ import annotations

import math

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make

# Rounds of the authors' implementation for n = 2..8.
ROUNDS = {1: [1, 3, 2, 5, 4, 5, 3], 2: [1, 1, 2, 3, 2, 4, 3], 3: [1, 1, 1, 3, 2, 3, 2]}


@pytest.mark.parametrize("k", ROUNDS)
def test_rounds_for_small_sizes(k):
    assert [make(f"base-k:k={k}", n).period for n in range(2, 9)] == ROUNDS[k]


@pytest.mark.parametrize(("size", "rounds"), [(243, 5), (3**9, 9)])
def test_powers_of_three_are_told_with_integers(size, rounds):
    assert make("base-k:k=2", size).period == rounds  # a floating-point logarithm says 4.99 for 243


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("name", ["base-k", "simple-base-k"])
def test_one_period_is_exactly_the_averaging_matrix(name, k):
    for size in [*range(2, 65), 243]:
        topology = make(f"{name}:k={k}", size)
        product = np.eye(size)
        for round in range(topology.period):
            product = topology.weights(round) @ product
        assert np.abs(product - 1 / size).max() < 1e-12, size
        assert topology.is_symmetric
        assert topology.degree <= k
        assert topology.period <= 2 * math.log(size) / math.log(k + 1) + 2 + 1e-9, size


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@pytest.mark.parametrize("name", ["base-k", "simple-base-k"])
def test_a_thousand_ranks_are_exact(name, k):
    topology = make(f"{name}:k={k}", 1000)
    x = np.random.default_rng(k).standard_normal((1000, 4))
    mean = x.mean(axis=0)
    for round in range(topology.period):
        x = topology._rounds[round].apply(x)
    assert np.abs(x - mean).max() < 1e-12
    assert topology.degree <= k


def test_the_simple_graph_is_at_times_longer_and_never_shorter():
    rounds = [(make("base-k", n).period, make("simple-base-k", n).period) for n in range(1, 200)]
    assert all(base <= simple for base, simple in rounds)
    assert rounds[5] == (4, 5)  # six ranks are two copies of three
    for k in (1, 2, 3):
        for n in range(2, 200):
            assert make(f"simple-base-k:k={k}", n).period <= 2 * math.log(n) / math.log(k + 1) + 2 + 1e-9


@pytest.mark.parametrize(("size", "messages"), [(6, 0.75), (25, 0.96), (16, 1.0), (1, 0.0)])
def test_messages_per_rank_and_round(size, messages):
    assert make("base-k", size).messages_per_round == pytest.approx(messages)


@pytest.mark.parametrize("size", [16, 32])
def test_sixteen_and_thirty_two_are_hypercubes_for_k_2_as_well(size):
    topology = make("base-k:k=2", size)
    assert topology.degree == 1
    assert topology.period == make("base-k:k=1", size).period


@pytest.mark.parametrize(("size", "k"), [(5, 4), (5, 9), (12, 100)])
def test_enough_neighbours_make_one_complete_round(size, k):
    topology = make(f"base-k:k={k}", size)
    np.testing.assert_array_equal(topology.weights(0), np.full((size, size), 1 / size))
    assert topology.period == 1


@pytest.mark.parametrize("k", [0, -1])
@pytest.mark.parametrize("name", ["base-k", "simple-base-k"])
def test_refuses_k_below_one(name, k):
    with pytest.raises(ConfigError, match=rf"{name} needs k >= 1 neighbours per round, got k={k}"):
        make(f"{name}:k={k}", 5)
