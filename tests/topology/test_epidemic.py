from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make


@pytest.mark.parametrize(("size", "s"), [(8, 3), (9, 4), (50, 7), (51, 6), (6, 5), (5000, 3)])
def test_every_round_is_regular(size, s):
    topology = make(f"epidemic:s={s}", size, seed=1)
    for t in range(4):
        for rank in range(0, size, max(1, size // 50)):
            own, heard = topology.row(rank, t)
            assert len(heard) == s
            assert {own, *heard.values()} == {1 / (s + 1)}
            assert all(rank in topology.neighbors(other, t) for other in heard)


@pytest.mark.parametrize(("size", "s"), [(10, 1), (16, 4), (15, 4)])
def test_contraction_is_that_of_a_random_regular_graph(size, s):
    gap = make(f"epidemic:s={s}", size).spectral_gap()
    assert (1 - gap) ** 2 == pytest.approx((1 - s / (size - 1)) / (s + 1))
    if s == 1:
        assert gap == pytest.approx(make("random-matching", size).spectral_gap())


@pytest.mark.parametrize(("size", "s"), [(9, 2), (10, 3)])
def test_every_pair_meets_equally_often(size, s):
    topology, rounds = make(f"epidemic:s={s}", size, seed=7), 4000
    met = sum((topology.weights(t) > 0).astype(int) for t in range(rounds)) / rounds
    np.testing.assert_allclose(met[np.triu_indices(size, 1)], s / (size - 1), atol=5 * 0.5 / np.sqrt(rounds))


def test_the_number_of_neighbours_grows_with_the_logarithm_by_itself():
    assert [make("epidemic", n).degree for n in (2, 3, 4, 8, 9, 100, 127, 1024)] == [1, 2, 2, 3, 4, 7, 8, 10]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("epidemic:s=0", "s >= 1 neighbours, got s=0"),
        ("epidemic:s=3", r"9 ranks with s=3 neighbours each would have 13.5 edges; use s=4"),
    ],
)
def test_impossible_numbers_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        make(spec, 9)
