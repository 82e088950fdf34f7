"""What every registered topology promises, and what it says when a request does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import Topology, from_graph, make, topologies, validate

BARE = [name for name in topologies if name not in ("file", "hierarchical", "alternating")]
SPECS = [
    *BARE,
    "base-k:k=2",
    "base-k:k=3",
    "simple-base-k:k=2",
    "torus:rows=2",
    "star:hub=1",
    "spanning-tree:of=torus",
    "erdos-renyi:p=0.7",
    "random-regular:degree=6",
    "d-equistatic:shifts=1",
    "u-equistatic:shifts=2",
    "od-equidyn:eta=0.53",
    "epidemic:s=2",
    "hierarchical:m=2",
    "hierarchical:between=base-k:k=2,m=4",
    "hierarchical:between=ring,m=3",
    "hierarchical:between=random-matching,m=2",
    "hierarchical:m=100",
    "alternating:m=2",
    "alternating:between=random-matching,m=2",
    "alternating:between=complete,m=1",
]
SIZES = [1, 2, 3, 4, 5, 6, 8, 13, 25, 64]


def fits(spec: str, size: int) -> bool:
    """Whether a topology exists for a size: some need powers of two, or nodes of equal size."""
    name = spec.partition(":")[0]
    if name in ("hypercube", "one-peer-hypercube"):
        return size & (size - 1) == 0
    if spec in ("torus:rows=2", "star:hub=1"):
        return size > 1 and (name == "star" or size % 2 == 0)
    if spec == "hierarchical:m=100":  # one node of any size, or full ones
        return size <= 100
    if name == "alternating" or "matching,m=2" in spec or spec == "hierarchical:m=2":
        return size % 2 == 0 or size == 1 or spec.endswith("m=1")
    return True


def cases(sizes: list[int]) -> pytest.MarkDecorator:
    found = [(spec, size) for spec in SPECS for size in sizes if fits(spec, size)]
    return pytest.mark.parametrize(("spec", "size"), found)


def test_every_registered_topology_is_tested():
    assert {spec.partition(":")[0] for spec in SPECS} == {*topologies} - {"file"}


def some_rounds(topology: Topology) -> range:
    return range(topology.period or 6)


@cases(SIZES)
def test_keeps_the_laws(spec, size):
    validate(make(spec, size, seed=3))


@cases(SIZES)
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


@cases(SIZES)
def test_facts_follow_from_the_matrices(spec, size):
    topology = make(spec, size)
    matrices = [topology.weights(round) for round in some_rounds(topology)]
    messages = [np.count_nonzero(m - np.diag(np.diag(m))) for m in matrices]
    degree = max(np.count_nonzero(m - np.diag(np.diag(m)), axis=1).max() for m in matrices)
    assert degree <= topology.degree
    if topology.period:
        assert topology.degree == degree
        assert topology.messages_per_round == pytest.approx(np.mean(messages) / size, rel=1e-12)
    symmetric = all(np.array_equal(m, m.T) for m in matrices)
    assert topology.is_symmetric == symmetric or (not topology.period and symmetric)
    assert topology.is_doubly_stochastic
    assert topology.is_static == (topology.period == 1)
    smallest = topology.smallest_eigenvalue()
    if topology.is_symmetric and topology.is_static:
        assert smallest == pytest.approx(np.linalg.eigvalsh(matrices[0])[0], abs=1e-12)
    else:
        assert smallest is None


@cases(SIZES)
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


@cases([2, 5, 6, 16])
def test_gossip_keeps_the_mean_and_disagreement_does_not_grow(spec, size):
    topology = make(spec, size)
    x = np.random.default_rng(size).standard_normal((size, 3))
    mean = x.mean(axis=0)
    for round in range(12):
        before = np.linalg.norm(x - mean)
        x = topology.weights(round) @ x
        np.testing.assert_allclose(x.mean(axis=0), mean, atol=1e-13)
        assert np.linalg.norm(x - mean) <= before * (1 + 1e-12) + 1e-14


@cases([5, 6, 12, 25])
def test_spectral_gap_bounds_a_whole_period(spec, size):
    topology = make(spec, size)
    if not topology.period or topology.finite_time is not None:
        return
    product = np.eye(size)
    for round in range(topology.period):
        product = topology.weights(round) @ product
    norm = np.linalg.norm(product - 1 / size, 2)
    assert norm == pytest.approx((1 - topology.spectral_gap()) ** topology.period, rel=1e-10)


DENSE = ("erdos-renyi:p=0.7", "hierarchical:m=100")
RANDOM = [spec for spec in SPECS if not make(spec, 64).period]


@pytest.mark.parametrize("size", [8, 21, 64])
@pytest.mark.parametrize("spec", RANDOM)
def test_random_schedules_contract_as_expected(spec, size):
    """The mean over rounds of |W x|^2 / |x|^2 for x of many directions, within five standard errors."""
    if not fits(spec, size):
        return
    topology = make(spec, size, seed=4)
    x = np.random.default_rng(size).standard_normal((size, 8 * size))
    x -= x.mean(axis=0)
    wanted = (1 - topology.spectral_gap()) ** 2
    rounds = 300 if not spec.startswith("alternating") else 600
    factors = [np.sum((topology.weights(t) @ x) ** 2) / np.sum(x**2) for t in range(rounds)]
    if spec.startswith("alternating"):
        product = [
            np.sum((topology.weights(t + 1) @ topology.weights(t) @ x) ** 2) for t in range(0, rounds, 2)
        ]
        factors, wanted = [p / np.sum(x**2) for p in product], wanted**2
    if spec.startswith(("alternating", "hierarchical")):  # differences inside a node vanish as well
        groups = size // 2
        wanted *= (groups - 1) / (size - 1)
    error = 5 * np.std(factors) / np.sqrt(len(factors)) + 0.002
    if spec.startswith("ou-equidyn"):  # its modes differ; the gap is that of the slowest one
        assert np.mean(factors) <= wanted + error
    else:
        assert np.mean(factors) == pytest.approx(wanted, abs=error)


@pytest.mark.parametrize("spec", SPECS)
def test_ranks_that_build_it_apart_have_the_same_bits(spec):
    mine, theirs = make(spec, 64, seed=9), make(spec, 64, seed=9)
    rows = {(rank, t): mine.row(rank, t) for t in (5, 0, 3) for rank in range(64)}
    for t in (0, 3, 5):
        for rank in reversed(range(64)):
            assert theirs.row(rank, t) == rows[rank, t]
    assert mine.identity == theirs.identity


@pytest.mark.parametrize("spec", SPECS)
def test_another_seed_is_told_by_the_identity(spec):
    mine, other = make(spec, 64, seed=1), make(spec, 64, seed=2)
    same = all(mine.row(rank, t) == other.row(rank, t) for t in range(3) for rank in range(64))
    assert (mine.identity == other.identity) == same


@pytest.mark.parametrize("spec", [spec for spec in SPECS if fits(spec, 1)])
def test_one_rank_has_nobody_to_talk_to(spec):
    topology = make(spec, 1)
    assert topology.row(0, 5) == (1.0, {})
    assert topology.neighbors(0, 0) == topology.listeners(0, 0) == []
    assert (topology.degree, topology.messages_per_round, topology.finite_time) == (0, 0.0, 0)
    assert topology.spectral_gap() == 1.0


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec not in DENSE])
def test_thousands_of_ranks_need_no_dense_matrix(spec, monkeypatch):
    monkeypatch.setattr(Topology, "weights", lambda self, round: pytest.fail("built a dense matrix"))
    size = next(size for size in (3001, 3002, 4096) if fits(spec, size))
    topology = make(spec, size, seed=1)
    for rank in (0, 1777, size - 1):
        own, heard = topology.row(rank, 2)
        assert own + sum(heard.values()) == pytest.approx(1.0, abs=1e-12)
        assert all(rank in topology.listeners(other, 2) for other in list(heard)[:20])
    assert topology.degree < size
    assert 0 < topology.spectral_gap() <= 1
    assert topology.messages_per_round <= topology.degree
    smallest = topology.smallest_eigenvalue()
    assert smallest is None or -1 <= smallest <= 1


LARGE = [spec for spec in BARE if spec not in ("complete", "star", "hypercube", "one-peer-hypercube")]


@pytest.mark.parametrize("spec", [*LARGE, "hierarchical:between=random-matching,m=8"])
def test_a_hundred_thousand_ranks_have_rows(spec, monkeypatch):
    monkeypatch.setattr(Topology, "weights", lambda self, round: pytest.fail("built a dense matrix"))
    topology = make(spec, 100_000, seed=5)
    for round in (0, 7):
        for rank in (0, 54_321, 99_999):
            own, heard = topology.row(rank, round)
            assert own + sum(heard.values()) == pytest.approx(1.0, abs=1e-12)
            assert all(rank in topology.listeners(other, round) for other in heard)
            assert all(topology.row(h, round)[1][rank] > 0 for h in topology.listeners(rank, round))


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


@pytest.mark.parametrize("name", BARE)
def test_factories_refuse_no_ranks_themselves(name):
    with pytest.raises(ConfigError, match="at least 1 rank, got size=0"):
        topologies.get(name)(0)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown topology 'moebius'; known: alternating, base-k, bin"):
        make("moebius", 4)


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
