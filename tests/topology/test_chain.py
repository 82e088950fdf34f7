from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.topology import from_graph, make


@pytest.mark.parametrize("size", [3, 4, 9, 64])
def test_eigenvalues_have_their_closed_forms(size):
    topology = make("chain", size)
    values = np.linalg.eigvalsh(topology.weights(0))
    assert topology.spectral_gap() == pytest.approx(2 / 3 * (1 - np.cos(np.pi / size)))
    assert topology.spectral_gap() == pytest.approx(1 - max(values[-2], -values[0]))
    assert topology.smallest_eigenvalue() == pytest.approx(values[0], abs=1e-12)
    assert topology.smallest_eigenvalue() > -1 / 3


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_has_the_weights_of_metropolis_and_hastings(size):
    wanted = from_graph(nx.path_graph(size)).weights(0)
    np.testing.assert_allclose(make("chain", size).weights(0), wanted, atol=1e-15)


def test_mixes_four_times_more_slowly_than_a_ring():
    assert make("ring", 500).spectral_gap() / make("chain", 500).spectral_gap() == pytest.approx(4, rel=1e-3)
