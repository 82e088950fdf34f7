from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_graph, is_tree, make, spanning_tree


def edges(topology):
    return {(i, j) for i, j in zip(*np.nonzero(topology.weights(0)), strict=True) if i < j}


@pytest.mark.parametrize("size", [1, 2, 3, 8, 15])
def test_a_binary_tree_is_networkx_s(size):
    wanted = from_graph(nx.full_rary_tree(2, size)).weights(0)
    np.testing.assert_array_equal(make("binary-tree", size).weights(0), wanted)
    assert is_tree(make("binary-tree", size))


@pytest.mark.parametrize("of", ["ring", "torus", "complete", "random-regular", "chain", "star:hub=2"])
@pytest.mark.parametrize("size", [5, 12, 16])
def test_a_spanning_tree_is_a_tree_of_the_graph_s_edges_and_not_much_deeper(of, size):
    graph, tree = make(of, size), make(f"spanning-tree:of={of}", size)
    assert is_tree(tree)
    assert edges(tree) <= edges(graph)
    wide, deep = (nx.diameter(nx.from_edgelist(edges(t))) for t in (graph, tree))
    assert deep <= 2 * wide
    np.testing.assert_array_equal(tree.weights(0), spanning_tree(graph).weights(0))


@pytest.mark.parametrize("name", ["chain", "binary-tree", "star"])
def test_the_spanning_tree_of_a_tree_is_itself(name):
    assert edges(make(f"spanning-tree:of={name}", 13)) == edges(make(name, 13))


@pytest.mark.parametrize(
    ("name", "tree"),
    [
        ("ring", False),
        ("complete", False),
        ("chain", True),
        ("one-peer-hypercube", False),
    ],
)
def test_tells_trees_from_others(name, tree):
    assert is_tree(make(name, 8)) == tree


@pytest.mark.parametrize(
    ("name", "words"), [("exponential", "directed"), ("base-k", "different in every round")]
)
def test_refuses_graphs_that_have_no_spanning_tree(name, words):
    with pytest.raises(ConfigError, match=words):
        make(f"spanning-tree:of={name}", 6)
