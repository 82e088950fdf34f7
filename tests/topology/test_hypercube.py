from __future__ import annotations

import itertools

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make


@pytest.mark.parametrize("d", [2, 3, 4, 6])
def test_eigenvalues_have_their_closed_forms(d):
    topology = make("hypercube", 2**d)
    values = np.linalg.eigvalsh(topology.weights(0))
    assert topology.spectral_gap() == pytest.approx(2 / (1 + d))
    assert 1 - max(values[-2], -values[0]) == pytest.approx(2 / (1 + d))
    assert topology.smallest_eigenvalue() == pytest.approx(-(d - 1) / (d + 1))
    assert (topology.smallest_eigenvalue() <= -1 / 3 - 1e-9) == (d >= 3)  # D2 diverges from 8 ranks on
    assert topology.degree == topology.messages_per_round == d


def test_neighbours_differ_in_one_binary_digit():
    assert make("hypercube", 16).neighbors(0b0101, 3) == [0b0001, 0b0100, 0b0111, 0b1101]
    assert [make("one-peer-hypercube", 8).neighbors(5, t) for t in range(4)] == [[4], [7], [1], [4]]


@pytest.mark.parametrize("d", [0, 1, 2, 3, 4])
def test_one_peer_is_exact_in_any_order(d):
    topology = make("one-peer-hypercube", 2**d)
    assert topology.finite_time == d
    for order in itertools.permutations(range(d)):
        product = np.eye(2**d)
        for round in order:
            product = topology.weights(round) @ product
        np.testing.assert_array_equal(product, np.full((2**d, 2**d), 0.5**d))


def test_all_ranks_end_with_the_same_bits():
    topology = make("one-peer-hypercube", 32)
    x = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    for t in range(5):
        rows = [topology.row(rank, t) for rank in range(32)]
        x = np.array([np.float32(own) * x[r] + sum(np.float32(w) * x[j] for j, w in heard.items())
                      for r, (own, heard) in enumerate(rows)], np.float32)  # fmt: skip
    assert len(set(x.tolist())) == 1


@pytest.mark.parametrize("name", ["hypercube", "one-peer-hypercube"])
def test_other_sizes_are_refused_with_what_to_use(name):
    with pytest.raises(ConfigError, match=rf"{name} needs a power of two.*size=6 \(near: 4, 8\); base-k"):
        make(name, 6)
