from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_graph, make


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (4, 4), (3, 7), (5, 8), (10, 10)])
def test_spectral_gap_has_its_closed_form(rows, columns):
    topology = make(f"torus:rows={rows}", rows * columns)
    gap = 2 / 5 * (1 - np.cos(2 * np.pi / max(rows, columns)))
    assert topology.spectral_gap() == pytest.approx(gap)
    assert topology.degree == topology.messages_per_round == 4


@pytest.mark.parametrize(("rows", "columns"), [(2, 5), (1, 7), (2, 2), (3, 4), (5, 5), (6, 1), (2, 1)])
def test_is_the_grid_with_joined_sides(rows, columns):
    grid = nx.grid_2d_graph(rows, columns, periodic=True)
    wanted = from_graph(nx.relabel_nodes(grid, {(r, c): r * columns + c for r, c in grid.nodes}))
    topology = make(f"torus:rows={rows}", rows * columns)
    np.testing.assert_allclose(topology.weights(0), wanted.weights(0), atol=1e-15)
    eigenvalues = np.linalg.eigvalsh(topology.weights(0))
    assert topology.spectral_gap() == pytest.approx(1 - max(eigenvalues[-2], -eigenvalues[0]))
    assert topology.smallest_eigenvalue() == pytest.approx(eigenvalues[0], abs=1e-12)


def test_is_as_square_as_the_size_allows():
    assert [make("torus", n).rows for n in (12, 16, 18, 7, 1)] == [3, 4, 3, 1, 1]


def test_prime_sizes_are_rings():
    np.testing.assert_array_equal(make("torus", 13).weights(0), make("ring", 13).weights(0))


@pytest.mark.parametrize("rows", [5, 0, -2, 24])
def test_refuses_rows_that_do_not_divide_the_size(rows):
    with pytest.raises(ConfigError, match=rf"divide the number of ranks, got rows={rows} for size=12"):
        make(f"torus:rows={rows}", 12)
