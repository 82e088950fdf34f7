from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_graph, make


@pytest.mark.parametrize(("size", "p"), [(64, None), (64, 0.2), (200, 0.05), (20, 0.9), (9, 1.0)])
def test_has_the_edges_it_says_and_metropolis_hastings_weights(size, p):
    topology = make("erdos-renyi" if p is None else f"erdos-renyi:p={p}", size, seed=2)
    graph = nx.from_numpy_array(topology.weights(0) - np.diag(np.diag(topology.weights(0))))
    wanted = 2 * np.log(size) / size if p is None else p
    assert graph.number_of_edges() == round(wanted * size * (size - 1) / 2)
    assert nx.is_connected(graph)
    np.testing.assert_array_equal(topology.weights(0), from_graph(graph).weights(0))


def test_mixes_as_the_graphs_of_networkx_do():
    seeds, edges = range(100), round(np.log(64) * 63)
    graphs = [nx.gnm_random_graph(64, edges, seed=seed) for seed in seeds]
    theirs = [from_graph(graph).spectral_gap() for graph in graphs if nx.is_connected(graph)]
    mine = [make("erdos-renyi", 64, seed=seed).spectral_gap() for seed in seeds]
    assert np.mean(mine) == pytest.approx(np.mean(theirs), abs=5 * np.std(theirs) * np.sqrt(2 / len(theirs)))


def test_pairs_are_equally_likely_to_be_joined():
    size, seeds = 12, 1500
    joined = sum(
        (make("erdos-renyi:p=0.6", size, seed=seed).weights(0) > 0).astype(int) for seed in range(seeds)
    )
    share = joined[np.triu_indices(size, 1)] / seeds
    np.testing.assert_allclose(share, round(0.6 * 66) / 66, atol=5 * np.sqrt(0.24 / seeds))


def test_draws_this_graph_on_every_machine():
    topology = make("erdos-renyi:p=0.5", 6, seed=3)
    assert [topology.neighbors(rank, 0) for rank in range(6)] == NEIGHBOURS


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("erdos-renyi:p=0", r"p in \(0, 1\], got p=0"),
        ("erdos-renyi:p=1.5", r"p in \(0, 1\], got p=1.5"),
        (
            "erdos-renyi:p=0.01",
            r"has 12 edges, and connecting 50 ranks takes at least 49; use p=0.16 or more",
        ),
        ("erdos-renyi:p=0.041", "was not connected in 200 draws; use p=0.16 or more, or random-regular"),
    ],
)
def test_unusable_densities_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        make(spec, 50)


NEIGHBOURS = [[1, 2, 4], [0, 2, 3], [0, 1, 5], [1, 4], [0, 3, 5], [2, 4]]
