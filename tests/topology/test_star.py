from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_graph, make


@pytest.mark.parametrize("size", [3, 4, 10, 50])
def test_spectral_gap_has_its_closed_form(size):
    topology = make("star", size)
    values = np.linalg.eigvalsh(topology.weights(0))
    assert topology.spectral_gap() == pytest.approx(1 / size)
    assert topology.spectral_gap() == pytest.approx(1 - values[-2])
    assert topology.smallest_eigenvalue() == pytest.approx(values[0], abs=1e-12)


def test_has_the_weights_of_metropolis_and_hastings():
    np.testing.assert_allclose(
        make("star", 7).weights(0), from_graph(nx.star_graph(6)).weights(0), atol=1e-15
    )


def test_the_hub_talks_to_everybody():
    topology = make("star:hub=3", 5)
    assert topology.neighbors(3, 0) == [0, 1, 2, 4]
    assert topology.listeners(0, 0) == [3]
    assert topology.messages_per_round == pytest.approx(8 / 5)


@pytest.mark.parametrize("hub", [-1, 5])
def test_refuses_a_hub_outside(hub):
    with pytest.raises(ConfigError, match=rf"a hub in \[0, 5\), got hub={hub}"):
        make(f"star:hub={hub}", 5)
