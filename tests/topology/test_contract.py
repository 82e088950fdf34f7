"""What every registered topology promises, and what it says when a request does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import Topology, from_graph, make, topologies, validate

SPECS = [*topologies, "base-k:k=2", "base-k:k=3"]
SIZES = [1, 2, 3, 4, 5, 6, 8, 13, 25, 64]


def some_rounds(topology: Topology) -> range:
    return range(topology.period or 6)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", SIZES)
def test_keeps_the_laws(spec, size):
    validate(make(spec, size, seed=3))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", SIZES)
def test_matrix_rows_neighbors_and_listeners_agree(spec, size):
    topology = make(spec, size)
    for round in some_rounds(topology):
        weights = topology.weights(round)
        assert weights.shape == (size, size)
        assert weights.dtype == np.float64
        assert not weights.flags.writeable
        for rank in range(size):
            own, heard = topology.row(rank, round)
            others = np.flatnonzero(weights[rank])
            assert own == weights[rank, rank]
            assert heard == {int(j): weights[rank, j] for j in others if j != rank}
            assert topology.neighbors(rank, round) == [j for j in others if j != rank]
            assert topology.listeners(rank, round) == [
                i for i in np.flatnonzero(weights[:, rank]) if i != rank
            ]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", SIZES)
def test_facts_follow_from_the_matrices(spec, size):
    topology = make(spec, size)
    matrices = [topology.weights(round) for round in some_rounds(topology)]
    messages = [np.count_nonzero(m - np.diag(np.diag(m))) for m in matrices]
    assert topology.degree == max(np.count_nonzero(m - np.diag(np.diag(m)), axis=1).max() for m in matrices)
    assert topology.messages_per_round == pytest.approx(np.mean(messages) / size, rel=1e-12)
    assert topology.is_symmetric == all(np.array_equal(m, m.T) for m in matrices)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", SIZES)
def test_finite_time_is_the_first_exact_round(spec, size):
    topology = make(spec, size)
    product = np.eye(size)
    exact = 0 if size == 1 else None
    for round in range(max(2 * topology.period, 6)):
        product = topology.weights(round) @ product
        if exact is None and np.abs(product - 1 / size).max() < 1e-12:
            exact = round + 1
    if topology.period or topology.finite_time is not None:  # four random pairs can be exact by chance
        assert topology.finite_time == exact
    if topology.finite_time is not None:
        assert np.abs(product - 1 / size).max() < 1e-12  # and it stays exact
        assert topology.spectral_gap() == 1.0
        assert topology.rounds_per_decade == 0.0


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("size", [2, 5, 6, 16])
def test_gossip_keeps_the_mean_and_disagreement_does_not_grow(spec, size):
    topology = make(spec, size)
    x = np.random.default_rng(size).standard_normal((size, 3))
    mean = x.mean(axis=0)
    for round in range(12):
        before = np.linalg.norm(x - mean)
        x = topology.weights(round) @ x
        np.testing.assert_allclose(x.mean(axis=0), mean, atol=1e-13)
        assert np.linalg.norm(x - mean) <= before * (1 + 1e-12) + 1e-14


@pytest.mark.parametrize("spec", ["ring", "exponential", "one-peer-exponential"])
@pytest.mark.parametrize("size", [5, 6, 12, 25])
def test_spectral_gap_bounds_a_whole_period(spec, size):
    topology = make(spec, size)
    product = np.eye(size)
    for round in range(topology.period):
        product = topology.weights(round) @ product
    norm = np.linalg.norm(product - 1 / size, 2)
    assert norm == pytest.approx((1 - topology.spectral_gap()) ** topology.period, rel=1e-10)


@pytest.mark.parametrize("spec", SPECS)
def test_one_rank_has_nobody_to_talk_to(spec):
    topology = make(spec, 1)
    assert topology.row(0, 5) == (1.0, {})
    assert topology.neighbors(0, 0) == topology.listeners(0, 0) == []
    assert (topology.degree, topology.messages_per_round, topology.finite_time) == (0, 0.0, 0)
    assert topology.spectral_gap() == 1.0


@pytest.mark.parametrize("spec", SPECS)
def test_thousands_of_ranks_need_no_dense_matrix(spec, monkeypatch):
    monkeypatch.setattr(Topology, "weights", lambda self, round: pytest.fail("built a dense matrix"))
    topology = make(spec, 3001, seed=1)
    for rank in (0, 1777, 3000):
        own, heard = topology.row(rank, 2)
        assert own + sum(heard.values()) == pytest.approx(1.0, abs=1e-12)
        assert all(rank in topology.listeners(other, 2) for other in list(heard)[:20])
    assert topology.degree <= 3000
    assert 0 < topology.spectral_gap() <= 1
    assert topology.messages_per_round <= topology.degree


def test_schedules_repeat_after_their_period():
    topology = make("base-k", 6)
    for round in range(topology.period):
        assert topology.weights(round) is topology.weights(round + 3 * topology.period)


def test_dense_matrices_are_kept_within_a_limit():
    topology = make("random-matching", 600)
    for round in range(40):
        topology.weights(round)
    assert len(topology._dense) * topology.weights(0).nbytes <= 64 << 20


def test_returned_rows_belong_to_the_caller():
    topology = make("ring", 5)
    topology.row(0, 0)[1].clear()
    topology.neighbors(0, 0).clear()
    assert topology.neighbors(0, 0) == [1, 4]


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "4"])
def test_refuses_a_size_that_is_no_number_of_ranks(size):
    with pytest.raises(ConfigError, match=r"at least 1 rank|must be an integer"):
        make("ring", size)


@pytest.mark.parametrize("name", topologies)
def test_factories_refuse_no_ranks_themselves(name):
    with pytest.raises(ConfigError, match="at least 1 rank, got size=0"):
        topologies.get(name)(0)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown topology 'torus'; known: base-k, complete, exponential"):
        make("torus", 4)


def test_rank_and_round_outside_their_range_are_named():
    topology = make("ring", 4)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 4\) for ring of 4 ranks, got 4"):
        topology.neighbors(4, 0)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 4\)"):
        topology.listeners(-1, 0)
    with pytest.raises(ValueError, match="round=-1"):
        topology.row(0, -1)


def test_representation_names_the_graph():
    assert repr(make("base-k", 6)) == "<Schedule base-k:k=1 of 6 ranks>"
    assert "path" in repr(from_graph([[0, 1], [1, 0]], name="path"))
