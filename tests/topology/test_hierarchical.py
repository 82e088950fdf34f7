from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import Hierarchical, make, topologies, validate
from pydec.topology.hierarchical import node_members

SCATTERED = [7, 3, 3, 7, 3, 7]  # nodes {0, 3, 5} and {1, 2, 4}


@pytest.mark.parametrize(
    "between", ["ring", "base-k", "one-peer-exponential", "exponential", "random-matching"]
)
@pytest.mark.parametrize(("nodes", "m"), [(5, 4), (6, 3), (8, 1), (1, 6)])
def test_matrices_are_kronecker_products(between, nodes, m):
    topology = make(f"hierarchical:between={between},m={m}", nodes * m, seed=3)
    outer = make(between, nodes, seed=3)
    for t in range(topology.period or 5):
        wanted = np.kron(outer.weights(t), np.full((m, m), 1 / m))
        np.testing.assert_allclose(topology.weights(t), wanted, atol=1e-16)
    if nodes > 1:
        assert topology.spectral_gap() == outer.spectral_gap()
        assert topology.finite_time == outer.finite_time
        assert topology.node_messages_per_round == outer.messages_per_round


def test_leaders_exchange_means_and_get_the_same_result():
    topology = make("hierarchical:between=ring", 13, nodes=[r // 4 for r in range(13)])
    assert isinstance(topology, Hierarchical)
    x = np.random.default_rng(0).standard_normal(13)
    means = np.array([x[list(ranks)].mean() for ranks in topology.members])
    result = np.empty(13)
    for node, ranks in enumerate(topology.members):
        own, heard = topology.node_row(node, 0)
        result[list(ranks)] = own * means[node] + sum(
            weight * means[other] for other, weight in heard.items()
        )
    np.testing.assert_allclose(result, topology.weights(0) @ x, atol=1e-15)
    assert [topology.leader(rank) for rank in (0, 5, 12)] == [0, 4, 12]


@pytest.mark.parametrize("between", ["ring", "base-k", "complete", "star", "one-peer-hypercube"])
def test_nodes_of_different_sizes_keep_rows_and_columns(between):
    nodes = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 3]
    topology = make(f"hierarchical:between={between}", len(nodes), nodes=nodes)
    validate(topology)
    assert topology.is_symmetric
    product = np.eye(len(nodes))
    for t in range(topology.period):
        product = topology.weights(t) @ product
    norm = np.linalg.norm(product - 1 / len(nodes), 2)
    assert (1 - topology.spectral_gap()) ** topology.period == pytest.approx(norm)
    if topology.is_static:
        values = np.linalg.eigvalsh(topology.weights(0))
        assert topology.smallest_eigenvalue() == pytest.approx(values[0], abs=1e-12)


def test_nodes_may_be_named_and_ordered_as_they_like():
    topology = make("hierarchical:between=complete", 6, nodes=SCATTERED)
    assert topology.members == ((0, 3, 5), (1, 2, 4))
    assert node_members(6, SCATTERED, None) == [[0, 3, 5], [1, 2, 4]]
    assert node_members(5, None, 2) == [[0, 1], [2, 3], [4]]
    assert node_members(4, [9, 9, 9, 9], 2) == [[0, 1], [2, 3]]  # what the user says goes


def test_another_layout_is_told_by_the_identity():
    one, two = (make("hierarchical", 4, nodes=nodes) for nodes in ([0, 0, 1, 1], [0, 1, 0, 1]))
    assert one.name == two.name
    assert one.identity != two.identity


def test_only_two_level_topologies_ask_for_the_layout():
    asking = [name for name in topologies if topologies.takes(name, "nodes")]
    assert asking == ["alternating", "hierarchical"]
    assert topologies.takes("hierarchical:between=ring", "nodes")


@pytest.mark.parametrize("between", ["ring", "base-k", "one-peer-exponential", "random-matching"])
def test_two_alternating_rounds_do_what_one_hierarchical_round_does(between):
    one, two = (
        make(f"{name}:between={between}", 6, seed=2, nodes=SCATTERED)
        for name in ("hierarchical", "alternating")
    )
    for t in range(4):
        np.testing.assert_allclose(two.weights(2 * t + 1) @ two.weights(2 * t), one.weights(t), atol=1e-15)
    assert two.degree == max(2, two.between.degree)


@pytest.mark.parametrize(
    ("spec", "size", "nodes", "message"),
    [
        ("hierarchical", 4, None, r"not known here; say how many do, as in m=4, or pass nodes=\[...\]"),
        ("alternating", 4, None, "not known here"),
        ("hierarchical:m=0", 4, None, "at least 1 rank, got m=0"),
        ("hierarchical", 4, [0, 1], "the node of each of 4 ranks, got 2 entries"),
        (
            "hierarchical",
            4,
            [0, 0, 1, 2],
            "nodes of 1 to 2 ranks need a symmetric schedule.*one-peer-exponential",
        ),
        (
            "hierarchical:between=random-matching",
            3,
            [0, 0, 1],
            "that repeats between them.*random-matching is not",
        ),
        ("alternating:m=2", 3, None, "nodes of the same size, got nodes of 1 to 2 ranks; use hierarchical"),
        ("hierarchical:between=moebius,m=2", 4, None, "unknown topology 'moebius'"),
        ("hierarchical:between=base-k:k=0,m=2", 4, None, "base-k needs k >= 1"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(spec, size, nodes, message):
    with pytest.raises(ConfigError, match=message):
        make(spec, size, nodes=nodes)
