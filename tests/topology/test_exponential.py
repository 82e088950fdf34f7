from __future__ import annotations

import itertools

import numpy as np
import pytest

from pydec.topology import make


@pytest.mark.parametrize("size", [4, 6, 8, 10, 12, 16, 30, 64])
def test_static_gap_of_even_sizes(size):
    tau = int(np.ceil(np.log2(size)))
    topology = make("exponential", size)
    assert topology.degree == tau
    assert topology.spectral_gap() == pytest.approx(2 / (1 + tau))
    eigenvalues = np.linalg.eigvals(topology.weights(0))
    assert topology.spectral_gap() == pytest.approx(1 - np.sort(np.abs(eigenvalues))[-2])


@pytest.mark.parametrize("size", [5, 7, 9, 11, 25, 63])
def test_static_gap_of_odd_sizes_is_larger(size):
    assert make("exponential", size).spectral_gap() > 2 / (1 + int(np.ceil(np.log2(size)))) + 1e-9


def test_static_neighbours_are_at_powers_of_two():
    topology = make("exponential", 10)
    assert topology.neighbors(7, 0) == [1, 5, 8, 9]
    assert topology.listeners(7, 0) == [3, 5, 6, 9]
    assert topology.row(7, 0)[0] == 1 / 5
    assert not topology.is_symmetric


@pytest.mark.parametrize("tau", [1, 2, 3, 4])
def test_one_peer_is_exact_for_powers_of_two_in_any_order(tau):
    size = 2**tau
    topology = make("one-peer-exponential", size)
    assert topology.period == topology.finite_time == tau
    for order in itertools.permutations(range(tau)):
        product = np.eye(size)
        for round in order:
            product = topology.weights(round) @ product
        np.testing.assert_array_equal(product, np.full((size, size), 1 / size))


@pytest.mark.parametrize(("size", "norm"), [(3, 0.25), (5, 0.20), (6, 0.217), (12, 0.209), (25, 0.192)])
def test_one_peer_contracts_other_sizes_by_this_much_per_period(size, norm):
    topology = make("one-peer-exponential", size)
    assert topology.finite_time is None
    assert (1 - topology.spectral_gap()) ** topology.period == pytest.approx(norm, abs=3e-3)


def test_one_peer_contracts_every_other_size_to_a_quarter_or_less():
    for size in (n for n in range(3, 600) if n & (n - 1)):
        topology = make("one-peer-exponential", size)
        assert (1 - topology.spectral_gap()) ** topology.period <= 0.25 + 1e-12, size


def test_one_peer_hears_one_rank_per_round():
    topology = make("one-peer-exponential", 6)
    assert [topology.neighbors(5, t) for t in range(4)] == [[0], [1], [3], [0]]
    assert [topology.listeners(5, t) for t in range(4)] == [[4], [3], [1], [4]]
    assert topology.messages_per_round == topology.degree == 1
