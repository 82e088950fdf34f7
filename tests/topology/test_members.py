"""A smaller topology on some ranks of a cluster, from a round on."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import topology
from pydec.errors import ConfigError
from pydec.topology.members import Members


@pytest.mark.parametrize(
    "spec", ["ring", "base-k:k=1", "one-peer-exponential", "random-matching", "complete"]
)
@pytest.mark.parametrize("start", [0, 7])
def test_members_take_the_places_and_the_others_rest(spec, start):
    places = topology.make(spec, 5, seed=3)
    ranks = [6, 0, 3, 7, 2]
    made = Members(places, ranks, 8, start)
    for round in range(start, start + 6):
        matrix = made.weights(round)
        np.testing.assert_array_equal(matrix[np.ix_(ranks, ranks)], places.weights(round - start))
        resting = [1, 4, 5]
        np.testing.assert_array_equal(matrix[resting], np.eye(8)[resting])
        np.testing.assert_array_equal(matrix[:, resting], np.eye(8)[:, resting])
        for rank in range(8):
            heard = list(made.row(rank, round)[1])
            assert heard == sorted(heard)
            listeners = [other for other in range(8) if rank in made.neighbors(other, round)]
            assert made.listeners(rank, round) == listeners
    for name in ("degree", "period", "messages_per_round", "is_symmetric", "is_doubly_stochastic"):
        assert getattr(made, name) == getattr(places, name)
    assert made.spectral_gap() == places.spectral_gap()


def test_a_finite_schedule_is_exact_from_its_start_on():
    places = topology.make("base-k:k=1", 3)
    made = Members(places, [1, 2, 4], 5, start=4)
    product = np.eye(5)
    assert made.finite_time is not None
    for round in range(4, 4 + made.finite_time):
        product = made.weights(round) @ product
    np.testing.assert_allclose(product[np.ix_([1, 2, 4], [1, 2, 4])], 1 / 3, atol=1e-12)


def test_members_that_cannot_be_are_refused():
    ring = topology.make("ring", 3)
    with pytest.raises(ConfigError, match=r"3 places, which need as many different members, got \[0, 1\]"):
        Members(ring, [0, 1], 4)
    with pytest.raises(ConfigError, match="as many different members"):
        Members(ring, [0, 1, 1], 4)
    with pytest.raises(ConfigError, match=r"ranks in \[0, 4\), got \[0, 1, 4\]"):
        Members(ring, [0, 1, 4], 4)
