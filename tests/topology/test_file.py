from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import from_graph, make, validate


def test_matrices_from_an_array_file(tmp_path):
    wanted = make("base-k", 6)
    np.save(tmp_path / "w.npy", np.stack([wanted.weights(t) for t in range(wanted.period)]))
    found = make(f"file:path={tmp_path / 'w.npy'}", 6)
    validate(found)
    assert found.finite_time == wanted.finite_time
    np.testing.assert_array_equal(found.weights(2), wanted.weights(2))


def test_integers_are_an_adjacency_matrix_unless_told_otherwise(tmp_path):
    path = tmp_path / "a.npy"
    edges = np.eye(5, k=1, dtype=int) + np.eye(5, k=-1, dtype=int)
    np.save(path, edges)
    np.testing.assert_array_equal(make(f"file:path={path}", 5).weights(0), from_graph(edges).weights(0))
    np.save(path, edges.astype(float))
    with pytest.raises(ConfigError, match=r"column 1 of .* sums to 2\.0"):
        make(f"file:path={path}", 5)
    assert make(f"file:path={path},kind=graph", 5).degree == 2


@pytest.mark.parametrize("ending", ["gml", "graphml", "adjlist", "edgelist"])
def test_graphs_from_text_files(tmp_path, ending):
    graph = nx.random_regular_graph(3, 12, seed=1)
    getattr(nx, f"write_{ending}")(graph, tmp_path / f"g.{ending}")
    found = make(f"file:path={tmp_path}/g.{ending}", 12)
    validate(found)
    np.testing.assert_array_equal(found.weights(0), from_graph(graph).weights(0))


def test_directed_graphs_are_for_push_sum(tmp_path):
    nx.write_gml(nx.DiGraph([(0, 1), (1, 2), (2, 0), (2, 1)]), tmp_path / "g.gml")
    assert not make(f"file:path={tmp_path}/g.gml", 3).is_doubly_stochastic


def test_files_that_cannot_be_used_are_named(tmp_path):
    np.save(tmp_path / "w.npy", make("ring", 5).weights(0))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    (tmp_path / "broken.gml").write_text("graph [ node")
    (tmp_path / "broken.edgelist").write_text("0 one\n")
    (tmp_path / "w.txt").write_text("")
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    cases = [
        ("none.npy", "there is no file"),
        ("broken.npy", "cannot be read as a graph"),
        ("objects.npy", "cannot be read as a graph"),
        ("broken.gml", "cannot be read as a graph"),
        ("broken.edgelist", "cannot be read as a graph"),
        ("w.txt", "ends in one of .npy, .edgelist, .gml"),
        ("w.npy", "is for 5 ranks, but there are 4"),
    ]
    for name, message in cases:
        with pytest.raises(ConfigError, match=message):
            make(f"file:path={tmp_path / name}", 4)
    with pytest.raises(ConfigError, match=r"file needs path=\.\.\."):
        make("file", 4)
