"""Who talks to whom: schedules of mixing matrices, as functions of the number of ranks."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.topology import (
    base_k,
    chain,
    complete,
    epidemic,
    equidyn,
    equistatic,
    erdos_renyi,
    exponential,
    file,
    hierarchical,
    hypercube,
    random_matching,
    random_regular,
    ring,
    star,
    torus,
    tree,
)
from pydec.topology.base import Matrix, Topology, check_size, topologies
from pydec.topology.exact_mean import ExactMean, MeanStep
from pydec.topology.graph import from_graph
from pydec.topology.hierarchical import Alternating, Hierarchical
from pydec.topology.matrix import from_matrix
from pydec.topology.tree import is_tree, spanning_tree
from pydec.topology.validate import validate

__all__ = [
    "Alternating",
    "ExactMean",
    "Hierarchical",
    "Matrix",
    "MeanStep",
    "Topology",
    "base_k",
    "chain",
    "complete",
    "epidemic",
    "equidyn",
    "equistatic",
    "erdos_renyi",
    "exponential",
    "file",
    "from_graph",
    "from_matrix",
    "hierarchical",
    "hypercube",
    "is_tree",
    "make",
    "random_matching",
    "random_regular",
    "ring",
    "spanning_tree",
    "star",
    "topologies",
    "torus",
    "tree",
    "validate",
]


def make(spec: str, size: int, seed: int = 0, nodes: Sequence[int] | None = None) -> Topology:
    """Build a topology by name.

    Args:
        spec: ``name`` or ``name:key=value``, for example ``"base-k:k=2"``; ``topologies`` lists the names.
        size: number of ranks, at least 1.
        seed: shared by all peers; only random topologies use it.
        nodes: for each rank, a number that names the node it is on; only two-level topologies use it.

    Raises:
        ConfigError: unknown name or option, a value or a size that does not fit.
    """
    check_size(size)
    return topologies.make(spec, size=int(size), seed=seed, nodes=nodes)
