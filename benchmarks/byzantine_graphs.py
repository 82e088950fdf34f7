"""Graphs of published tables, with the ranks that lie on them.

He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", 2022, arXiv:2202.01545:
a ring on which every honest rank hears liars of its own; two cliques that one edge, or one liar, joins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from pydec import topology
from pydec.topology.base import Topology

Placed = tuple[Topology, tuple[int, ...]]
RING = 5
WEIGHTS = (0.0, 0.0625, 0.125, 0.1875, 0.25)
"""Of the liar on the bridge, in the rows of its two neighbours."""


def ring(extra: int) -> Placed:
    """Five honest ranks on a ring, each of which hears two liars of its own; the first one hears more."""
    liars = [rank for rank in range(RING) for _ in range(2)] + [0] * extra
    edges = np.zeros((RING + len(liars),) * 2)
    for rank in range(RING):
        edges[rank, (rank + 1) % RING] = 1
    for liar, victim in enumerate(liars, RING):
        edges[victim, liar] = 1
    graph = topology.from_graph(edges + edges.T, "ring with liars")
    return graph, tuple(range(RING, len(edges)))


def dumbbell(size: int = 10) -> Placed:
    """Two cliques of so many, and an edge from one to the other; nobody lies."""
    edges = np.kron(np.eye(2), np.ones((size, size))) - np.eye(2 * size)
    edges[size - 1, size] = edges[size, size - 1] = 1
    return topology.from_graph(edges, "two cliques"), ()


def bridge(weight: float, size: int = 5) -> Placed:
    """Two cliques, an edge between them, and a liar that both ends of it hear with that weight.

    Honest ranks give each other 1 / 8.
    """
    matrix = np.array(dumbbell(size)[0].weights(0) > 0, np.float64) / 8
    matrix = np.pad(matrix, (0, 1))
    matrix[[size - 1, size], -1] = matrix[-1, [size - 1, size]] = weight
    if not weight:
        matrix = matrix[:-1, :-1]
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, 1.0 - matrix.sum(axis=1))
    graph = topology.from_matrix(matrix, "two cliques with a liar between")
    return graph, (2 * size,) if weight else ()


GRAPHS: dict[str, Callable[[], Placed]] = {
    "ring, 2 liars each": partial(ring, 0),
    "ring, 2 liars each and 1 more": partial(ring, 1),
    "two cliques of 10": dumbbell,
    **{f"bridge, liar's weight {weight:g}": partial(bridge, weight) for weight in WEIGHTS},
}
