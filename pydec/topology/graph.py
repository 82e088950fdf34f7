"""Weights on any connected graph: Metropolis-Hastings, or column-stochastic on a directed one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size
from pydec.topology.schedule import Schedule, SparseRound

Ranks = NDArray[np.int64]


def from_graph(graph: Any, name: str | None = None, *, directed: bool | None = None) -> Topology:
    """Static topology on a given graph, with weights that fit it.

    Undirected: weight 1 / (1 + max(degree_i, degree_j)) on every edge (i, j) and what is missing to 1
    on the rank itself, at least 1 / (1 + degree). Symmetric and doubly stochastic on any connected graph.

    Directed: every rank splits its value evenly among itself and those that it sends to, so columns
    sum to 1. Unless in- and out-degrees are all equal, rows do not: ``is_doubly_stochastic`` is then
    False and only push-sum finds the mean.

    Self-loops and edge weights are ignored.

    Source: Xiao, Boyd, "Fast linear iterations for distributed averaging", Systems & Control
    Letters 2004, section 4.2 (with the 1 + of its lazy form); directed: Nedic, Olshevsky,
    "Distributed optimization over time-varying directed graphs", IEEE TAC 2015, equation (1).

    Args:
        graph: a networkx graph, or its adjacency matrix of shape (n, n) where every entry that is
            not zero is an edge; i sends to j if A[i, j] is not 0. If the nodes of a networkx graph are
            0 .. n-1 they are the ranks; otherwise ranks follow the order of ``graph.nodes``.
        name: for messages.
        directed: None takes it from a networkx graph, and False for a matrix, so that an edge
            forgotten in one direction is not taken for intended.

    Raises:
        ConfigError: the graph has no node or is not (strongly) connected, or is directed and not
            meant to be; the matrix is not square, negative or not finite.
    """
    if hasattr(graph, "is_directed"):
        size, sends, hears = _from_networkx(graph)
        directed = bool(graph.is_directed()) if directed is None else directed
    else:
        size, sends, hears = _from_adjacency(graph)
        directed = bool(directed)
    if directed:
        return split_evenly(size, sends, hears, name or "directed-graph")
    codes, back = sends * size + hears, hears * size + sends
    one_way = np.setdiff1d(codes, back)
    if one_way.size:
        i, j = divmod(int(one_way[0]), size)
        raise ConfigError(
            f"the graph is directed: it has the edge ({i}, {j}) but not ({j}, {i}); add it, as in A + A.T "
            "or graph.to_undirected(), or pass directed=True if the algorithm is push-sum"
        )
    return metropolis(size, sends, hears, name or "metropolis-hastings")


def metropolis(size: int, sends: Ranks, hears: Ranks, name: str) -> Schedule:
    """Metropolis-Hastings weights on edges that are listed in both directions, each once.

    Raises:
        ConfigError: the graph is not connected.
    """
    check_connected(size, sends, hears)
    degrees = np.bincount(hears, minlength=size)
    values = 1.0 / (1 + np.maximum(degrees[sends], degrees[hears]))
    shared = SparseRound.from_entries(np.zeros(size), hears, sends, values)
    exact = bool(np.all(degrees == size - 1))
    return Schedule(name, [_complete_rows(shared)], finite_time=1 if exact else None)


def split_evenly(size: int, sends: Ranks, hears: Ranks, name: str) -> Schedule:
    """Column-stochastic weights on directed edges, each listed once.

    Raises:
        ConfigError: the graph is not strongly connected.
    """
    check_connected(size, sends, hears)
    out, into = np.bincount(sends, minlength=size), np.bincount(hears, minlength=size)
    own = 1.0 / (1 + out)
    balanced = bool(np.all(out == out[0]) and np.all(into == out[0]))
    exact = balanced and out[0] == size - 1
    row = SparseRound.from_entries(own, hears, sends, own[sends])
    return Schedule(name, [row], finite_time=1 if exact else None, doubly_stochastic=balanced)


def check_connected(size: int, sends: Ranks, hears: Ranks) -> None:
    """Raise ConfigError unless every rank's word reaches every other along the edges."""
    for start, end, verb in ((sends, hears, "reaches"), (hears, sends, "is reached by")):
        seen = reached(size, start, end)
        if not seen.all():
            raise ConfigError(
                f"the graph is not connected: rank 0 {verb} {np.count_nonzero(seen)} of {size} ranks and not "
                f"rank {int(np.argmin(seen))}; peers that cannot reach one another never agree"
            )


def reached(size: int, start: Ranks, end: Ranks) -> NDArray[np.bool_]:
    """Which ranks can be reached from rank 0 along edges ``start[i] -> end[i]``; shape (size,)."""
    order = np.argsort(start, kind="stable")
    end = end[order]
    firsts = np.zeros(size + 1, np.int64)
    np.cumsum(np.bincount(start, minlength=size), out=firsts[1:])
    latest = np.zeros(size, np.int64)
    seen = np.zeros(size, bool)
    seen[0] = True
    frontier = np.zeros(1, np.int64)
    while frontier.size:
        lengths = firsts[frontier + 1] - firsts[frontier]
        before = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(firsts[frontier] - before, lengths)
        found = end[places]
        found = found[~seen[found]]
        seen[found] = True
        latest[found] = np.arange(found.size)  # of equal ones the last to be written stays
        frontier = found[latest[found] == np.arange(found.size)]
    return seen


def _complete_rows(shared: SparseRound) -> SparseRound:
    """The own weights that make rows sum to 1; rounded once, so the bits are the same everywhere."""
    values, starts = shared.values.tolist(), shared.starts.tolist()
    own = [1.0 - math.fsum(values[first:last]) for first, last in itertools.pairwise(starts)]
    return SparseRound(np.array(own), shared.starts, shared.ranks, shared.values)


def _from_networkx(graph: Any) -> tuple[int, Ranks, Ranks]:
    nodes = list(graph.nodes)
    size = len(nodes)
    check_size(size)
    if set(nodes) == set(range(size)):
        nodes.sort()
    rank_of = {node: rank for rank, node in enumerate(nodes)}
    pairs = {(rank_of[u], rank_of[v]) for u, v in graph.edges()}
    if not graph.is_directed():
        pairs |= {(j, i) for i, j in pairs}
    edges = np.array(sorted((i, j) for i, j in pairs if i != j), np.int64).reshape(-1, 2)
    return size, edges[:, 0], edges[:, 1]


def _from_adjacency(matrix: Any) -> tuple[int, Ranks, Ranks]:
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
    sends, hears = np.nonzero(array)
    off = sends != hears
    return array.shape[0], sends[off], hears[off]
