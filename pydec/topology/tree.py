"""Trees: the graphs on which sums can be relayed, each in n - 1 edges."""

from __future__ import annotations

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.graph import Ranks, metropolis


@topologies.register("binary-tree")
def binary_tree(size: int) -> Topology:
    """Rank r exchanges with (r - 1) // 2 and with 2 r + 1 and 2 r + 2: 3 messages at most, a tree.

    Metropolis-Hastings weights. Any two ranks are at most 2 log2(size) edges apart, which is what delays
    the sums of relaysgd; averaging mixes slowly, as on every tree.
    """
    check_size(size)
    children = np.arange(1, size)
    return _tree(size, (children - 1) // 2, children, "binary-tree")


@topologies.register("spanning-tree")
def spanning_tree_of(size: int, of: str = "torus", seed: int = 0) -> Topology:
    """Some n - 1 edges of a static symmetric graph that connect all ranks, as near to its middle as they go.

    Args:
        size: number of ranks.
        of: specification of the graph, with at most one option.
        seed: for a random one.
    """
    check_size(size)
    return spanning_tree(topologies.make(of, size=size, seed=seed))


def spanning_tree(graph: Topology) -> Topology:
    """The tree of shortest paths from a rank in the middle of a graph, with Metropolis-Hastings weights.

    The middle is half-way on a shortest path from the rank farthest from rank 0 to the rank farthest from
    that one. In the tree no two ranks are farther apart than twice the graph's diameter; of a tree it is the
    tree itself. The same on every rank.

    Args:
        graph: static and symmetric.

    Raises:
        ConfigError: it changes from round to round, is directed or not connected.
    """
    if not (graph.is_static and graph.is_symmetric):
        what = "directed" if graph.is_static else "different in every round"
        raise ConfigError(
            f"a spanning tree needs a static symmetric graph, and {graph.name} is {what}; use ring, torus, "
            "random-regular or another that stays as it is"
        )
    end = _paths(graph, _paths(graph, 0)[0][-1])
    middle = end[0][-1]
    for _ in range(_depth(end[1], middle) // 2):
        middle = end[1][middle]
    order, parent = _paths(graph, middle)
    children = np.array(order[1:], np.int64)
    return _tree(graph.size, np.array([parent[c] for c in order[1:]], np.int64), children, _name(graph))


def is_tree(topology: Topology) -> bool:
    """Whether it is static and symmetric, and one path, and only one, joins any two ranks."""
    if not (topology.is_static and topology.is_symmetric):
        return False
    edges = round(topology.messages_per_round * topology.size)
    return edges == 2 * (topology.size - 1) and len(_reached(topology, 0)[0]) == topology.size


def _name(graph: Topology) -> str:
    return f"spanning-tree:of={graph.name}"


def _tree(size: int, parents: Ranks, children: Ranks, name: str) -> Topology:
    sends, hears = np.concatenate([parents, children]), np.concatenate([children, parents])
    return metropolis(size, sends.astype(np.int64), hears.astype(np.int64), name)


def _reached(graph: Topology, root: int) -> tuple[list[int], dict[int, int]]:
    """Ranks reached from the root, nearest first, and the rank before each on a shortest path."""
    order, parent = [root], {root: root}
    for rank in order:
        for other in graph.neighbors(rank, 0):
            if other not in parent:
                parent[other] = rank
                order.append(other)
    return order, parent


def _paths(graph: Topology, root: int) -> tuple[list[int], dict[int, int]]:
    order, parent = _reached(graph, root)
    if len(order) < graph.size:
        raise ConfigError(
            f"{graph.name} of {graph.size} ranks is not connected: rank {root} reaches {len(order)} of them, "
            "so it has no spanning tree"
        )
    return order, parent


def _depth(parent: dict[int, int], rank: int) -> int:
    depth = 0
    while parent[rank] != rank:
        rank, depth = parent[rank], depth + 1
    return depth
