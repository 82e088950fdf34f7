from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import make


@pytest.mark.parametrize(
    ("size", "degree"), [(10, 3), (128, 4), (33, 8), (50, 25), (50, 47), (20, 19), (7, 4), (6, 4), (1001, 6)]
)
def test_is_simple_connected_and_regular(size, degree):
    for seed in range(3):
        weights = make(f"random-regular:degree={degree}", size, seed=seed).weights(0)
        graph = nx.from_numpy_array(weights - np.diag(np.diag(weights)))
        assert {d for _, d in graph.degree} == {degree}
        assert nx.is_connected(graph)
        np.testing.assert_allclose(weights[weights > 0], 1 / (degree + 1), rtol=1e-14)


@pytest.mark.parametrize(("degree", "rho"), [(4, 0.887), (6, 0.767), (8, 0.666)])
def test_mixes_almost_as_well_as_any_graph_of_its_degree(degree, rho):
    topologies = [make(f"random-regular:degree={degree}", 128, seed=seed) for seed in range(12)]
    found = 1 - np.mean([topology.spectral_gap() for topology in topologies])
    assert found == pytest.approx(rho, abs=0.012)  # measured with networkx's graphs
    assert found <= (1 + 2 * np.sqrt(degree - 1)) / (degree + 1) + 0.01


def test_gap_does_not_shrink_with_the_size():
    limit = 1 - (1 + 2 * np.sqrt(3)) / 5
    assert make("random-regular", 4000).spectral_gap() == pytest.approx(limit, abs=0.01)


def test_pairs_are_equally_likely_to_be_joined():
    size, seeds = 10, 1500
    joined = sum(
        (make("random-regular:degree=3", size, seed=seed).weights(0) > 0).astype(int) for seed in range(seeds)
    )
    share = joined[np.triu_indices(size, 1)] / seeds
    np.testing.assert_allclose(share, 3 / 9, atol=5 * np.sqrt(0.22 / seeds))


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_few_ranks_make_a_complete_graph(size):
    assert make("random-regular", size).finite_time == 1


@pytest.mark.parametrize(
    ("spec", "size", "message"),
    [
        ("random-regular:degree=2", 9, "degree >= 3, got degree=2; degree 2 is a ring"),
        ("random-regular:degree=3", 9, r"9 ranks with 3 neighbours each would have 13.5 edges; use degree=4"),
    ],
)
def test_impossible_degrees_are_refused(spec, size, message):
    with pytest.raises(ConfigError, match=message):
        make(spec, size)
