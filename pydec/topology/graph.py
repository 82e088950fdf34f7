"""Metropolis-Hastings weights on any connected undirected graph."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size
from pydec.topology.schedule import Schedule, SparseRound


def from_graph(graph: Any, name: str = "metropolis-hastings") -> Topology:
    """Static topology on a given graph: weight 1 / (1 + max(degree_i, degree_j)) on every edge (i, j).

    The own weight is what is missing to 1, at least 1 / (1 + degree). The matrix is symmetric and
    doubly stochastic on any connected graph. Self-loops and edge weights are ignored.

    Source: Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control
    Letters 2004, section 4.2 (with the 1 + of its lazy form).

    Args:
        graph: a networkx graph, or its adjacency matrix of shape (n, n) where every entry that is
            not zero is an edge. If the nodes of a networkx graph are 0 .. n-1 they are the ranks;
            otherwise ranks follow the order of ``graph.nodes``.
        name: for messages.

    Raises:
        ConfigError: the graph is directed, has no node or is not connected; the matrix is not
            square, not symmetric, negative or not finite.
    """
    adjacent = _from_networkx(graph) if hasattr(graph, "is_directed") else _from_matrix(graph)
    _check_connected(adjacent)
    degrees = [len(others) for others in adjacent]
    own: list[float] = []
    heard: list[dict[int, float]] = []
    for rank, others in enumerate(adjacent):
        row = {other: 1 / (1 + max(degrees[rank], degrees[other])) for other in sorted(others)}
        heard.append(row)
        own.append(1.0 - math.fsum(row.values()))  # rounded once, so the bits are the same everywhere
    exact = all(degree == len(adjacent) - 1 for degree in degrees)
    return Schedule(name, [SparseRound.from_rows(own, heard)], finite_time=1 if exact else None)


def _from_networkx(graph: Any) -> list[set[int]]:
    if graph.is_directed():
        raise ConfigError(
            "the graph is directed; Metropolis-Hastings weights need an undirected one: graph.to_undirected()"
        )
    nodes = list(graph.nodes)
    check_size(len(nodes))
    if set(nodes) == set(range(len(nodes))):
        nodes.sort()
    rank_of = {node: rank for rank, node in enumerate(nodes)}
    adjacent: list[set[int]] = [set() for _ in nodes]
    for u, v in graph.edges():
        i, j = rank_of[u], rank_of[v]
        if i != j:
            adjacent[i].add(j)
            adjacent[j].add(i)
    return adjacent


def _from_matrix(matrix: Any) -> list[set[int]]:
    try:
        array: NDArray[np.float64] = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError(
            f"a graph must be a networkx graph or an adjacency matrix, got {type(matrix).__name__}"
        ) from None
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise ConfigError(f"an adjacency matrix must have shape (n, n), got {array.shape}")
    check_size(array.shape[0])
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        i, j = np.argwhere(~(np.isfinite(array) & (array >= 0)))[0]
        raise ConfigError(
            f"entries of an adjacency matrix must be finite and not negative, got {array[i, j]} at ({i}, {j})"
        )
    edges = array != 0
    if np.any(edges != edges.T):
        i, j = np.argwhere(edges & ~edges.T)[0]
        raise ConfigError(
            f"the graph is directed: it has the edge ({i}, {j}) but not ({j}, {i}); add it, as in A + A.T"
        )
    np.fill_diagonal(edges, False)
    return [set(np.flatnonzero(row).tolist()) for row in edges]


def _check_connected(adjacent: list[set[int]]) -> None:
    seen = {0}
    frontier = [0]
    while frontier:
        for other in adjacent[frontier.pop()] - seen:
            seen.add(other)
            frontier.append(other)
    if len(seen) < len(adjacent):
        outside = next(rank for rank in range(len(adjacent)) if rank not in seen)
        raise ConfigError(
            f"the graph is not connected: rank 0 reaches {len(seen)} of {len(adjacent)} ranks and not "
            f"rank {outside}; peers that cannot reach one another never agree"
        )
