from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_matrix, make, validate

RING = make("ring", 5).weights(0)
PUSH = np.array([[0.5, 0.0, 0.5], [0.25, 0.5, 0.0], [0.25, 0.5, 0.5]])


@pytest.mark.parametrize("spec", ["ring", "exponential", "base-k", "one-peer-exponential", "torus"])
@pytest.mark.parametrize("size", [2, 6, 8])
def test_matrices_of_a_topology_make_the_same_topology(spec, size):
    wanted = make(spec, size)
    found = from_matrix([wanted.weights(t) for t in range(wanted.period)])
    validate(found)
    for t in range(2 * wanted.period):
        np.testing.assert_array_equal(found.weights(t), wanted.weights(t))
    assert found.finite_time == wanted.finite_time
    assert found.spectral_gap() == pytest.approx(wanted.spectral_gap())
    assert (found.period, found.degree) == (wanted.period, wanted.degree)
    assert (found.is_symmetric, found.is_doubly_stochastic) == (wanted.is_symmetric, True)


def test_columns_alone_are_for_push_sum():
    topology = from_matrix(PUSH, "mine")
    validate(topology)
    assert not topology.is_doubly_stochastic
    assert topology.finite_time is None
    values = np.sort(np.abs(np.linalg.eigvals(PUSH)))
    assert topology.spectral_gap() == pytest.approx(1 - values[-2])
    twice = from_matrix([PUSH, PUSH])
    assert twice.spectral_gap() == pytest.approx(topology.spectral_gap())


def test_one_rank():
    topology = from_matrix([[1.0]])
    validate(topology)
    assert (topology.size, topology.finite_time, topology.degree) == (1, 0, 0)


def test_connected_over_a_period_is_enough():
    pairs = [np.kron(np.eye(2), np.full((2, 2), 0.5)), np.eye(4)]
    with pytest.raises(ConfigError, match="not connected: rank 0 reaches 2 of 4 ranks and not rank 2"):
        from_matrix(pairs)
    pairs[1] = pairs[0][np.ix_([0, 2, 1, 3], [0, 2, 1, 3])]
    assert from_matrix(pairs).finite_time == 2


def test_the_digest_tells_matrices_apart():
    other = RING.copy()
    other[[0, 1]] = other[[1, 0]]
    assert from_matrix(RING).identity == from_matrix(RING.copy()).identity != from_matrix(other).identity


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        (
            PUSH.T,
            r"column 0 of mine sums to 1.0, not|column \d of mine sums to .* while all rows do.*from_graph",
        ),
        (RING * 0.5, r"column 0 of mine sums to 0.5, not to 1 within 1e-09, and row 0 sums to 0.5"),
        ([RING, RING * 0.5], "column 0 of matrix 1 of mine sums to 0.5"),
        (np.round(RING, 3), "sums to 0.999"),
        (RING * np.nan, r"finite and not negative, got nan at \(0, 0\)"),
        (np.array([[1.5, -0.5], [-0.5, 1.5]]), r"not negative, got -0.5 at \(0, 1\)"),
        (np.eye(3), "not connected"),
        (np.ones((2, 3)), r"shape \(n, n\) or \(T, n, n\) with n, T >= 1, got \(2, 3\)"),
        (np.ones((0, 2, 2)), "T >= 1"),
        (np.ones(4), r"got \(4,\)"),
        ([np.eye(2), np.eye(3)], "different shapes"),
        ("ring", "got str"),
    ],
)
def test_unusable_matrices_are_refused(matrices, message):
    with pytest.raises(ConfigError, match=message):
        from_matrix(matrices, "mine")
