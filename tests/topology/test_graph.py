from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_graph, validate

CHAIN = np.eye(5, k=1) + np.eye(5, k=-1)


@pytest.mark.parametrize(
    ("graph", "gap"),
    [
        (nx.path_graph(9), 2 / 3 * (1 - np.cos(np.pi / 9))),
        (nx.star_graph(9), 1 / 10),
        (nx.hypercube_graph(4), 2 / 5),
        (nx.grid_2d_graph(5, 7, periodic=True), 2 / 5 * (1 - np.cos(2 * np.pi / 7))),
    ],
    ids=["chain", "star", "hypercube", "torus"],
)
def test_spectral_gaps_of_known_graphs(graph, gap):
    topology = from_graph(graph)
    validate(topology)
    assert topology.is_symmetric
    assert topology.finite_time is None
    assert topology.spectral_gap() == pytest.approx(gap)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_those_of_metropolis_and_hastings(seed):
    graph = nx.connected_watts_strogatz_graph(20, 4, 0.5, seed=seed)
    topology = from_graph(graph)
    validate(topology)
    for i, j in graph.edges:
        assert topology.weights(0)[i, j] == 1 / (1 + max(graph.degree[i], graph.degree[j]))
    assert topology.degree == max(degree for _, degree in graph.degree)
    assert topology.messages_per_round == pytest.approx(2 * graph.number_of_edges() / 20)


def test_matrix_and_networkx_graph_give_the_same():
    shuffled = nx.Graph()
    shuffled.add_nodes_from([3, 0, 4, 1, 2])
    shuffled.add_edges_from([(0, 1), (1, 2), (2, 3), (3, 4), (2, 2)])
    np.testing.assert_array_equal(from_graph(shuffled).weights(0), from_graph(CHAIN).weights(0))
    np.testing.assert_array_equal(from_graph(CHAIN + np.eye(5)).weights(0), from_graph(CHAIN).weights(0))


def test_named_nodes_become_ranks_in_their_order():
    assert from_graph(nx.Graph([("b", "a"), ("a", "c")])).neighbors(0, 0) == [1]


@pytest.mark.parametrize("size", [1, 2, 6])
def test_a_complete_graph_averages_at_once(size):
    topology = from_graph(nx.complete_graph(size))
    np.testing.assert_allclose(topology.weights(0), 1 / size, rtol=1e-15)
    assert topology.finite_time == min(1, size - 1)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph([(0, 1)]), "not connected: rank 0 is reached by 1 of 2 ranks and not rank 1"),
        (nx.DiGraph([(1, 0)]), "not connected: rank 0 reaches 1 of 2 ranks and not rank 1"),
        (np.eye(3, k=1), r"has the edge \(0, 1\) but not \(1, 0\).*to_undirected.*directed=True.*push-sum"),
        (nx.Graph([(0, 1), (2, 3)]), "rank 0 reaches 2 of 4 ranks and not rank 2"),
        (np.zeros((2, 2)), "not connected"),
        (nx.Graph(), "at least 1 rank"),
        (np.zeros((0, 0)), "at least 1 rank"),
        (np.zeros((2, 3)), r"shape \(n, n\), got \(2, 3\)"),
        (-CHAIN, r"not negative, got -1.0 at \(0, 1\)"),
        (CHAIN * np.nan, "finite"),
        ("ring", "networkx graph or an adjacency matrix, got str"),
        (None, "shape"),
    ],
)
def test_unusable_graphs_are_refused(graph, message):
    with pytest.raises(ConfigError, match=message):
        from_graph(graph)


def test_directed_graphs_get_columns_that_sum_to_one_and_say_so():
    graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
    topology = from_graph(graph)
    validate(topology)
    assert not topology.is_doubly_stochastic
    assert not topology.is_symmetric
    assert topology.smallest_eigenvalue() is None
    np.testing.assert_allclose(
        topology.weights(0), [[1 / 3, 0, 1 / 2], [1 / 3, 1 / 2, 0], [1 / 3, 1 / 2, 1 / 2]]
    )
    values = np.sort(np.abs(np.linalg.eigvals(topology.weights(0))))
    assert topology.spectral_gap() == pytest.approx(1 - values[-2])
    matrix = nx.to_numpy_array(graph, nodelist=range(3))
    np.testing.assert_array_equal(from_graph(matrix, directed=True).weights(0), topology.weights(0))


def test_push_sum_finds_the_mean_on_a_directed_graph_where_plain_averaging_does_not():
    topology = from_graph(nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2), (2, 3), (3, 0)]))
    x, mass = np.array([1.0, 2.0, 3.0, 10.0]), np.ones(4)
    for _ in range(200):
        x, mass = topology.weights(0) @ x, topology.weights(0) @ mass
    np.testing.assert_allclose(x / mass, 4.0)
    assert np.abs(x - 4.0).max() > 0.1


def test_a_directed_graph_with_equal_degrees_is_doubly_stochastic():
    topology = from_graph(nx.DiGraph([(i, (i + step) % 7) for i in range(7) for step in (1, 3)]))
    validate(topology)
    assert topology.is_doubly_stochastic
    assert not topology.is_symmetric


@pytest.mark.parametrize("graph", [nx.random_regular_graph(3, 700, seed=1), nx.path_graph(600)])
def test_large_graphs_have_the_eigenvalues_of_a_dense_routine(graph):
    topology = from_graph(graph)
    values = np.linalg.eigvalsh(topology.weights(0))
    assert topology.spectral_gap() == pytest.approx(1 - max(values[-2], -values[0]), rel=0.02, abs=1e-9)
    assert topology.smallest_eigenvalue() == pytest.approx(values[0], abs=1e-5)
