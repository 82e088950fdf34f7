"""Who talks to whom: schedules of mixing matrices, as functions of the number of ranks."""

from __future__ import annotations

from pydec.topology import base_k, complete, exponential, random_matching, ring
from pydec.topology.base import Matrix, Topology, check_size, topologies
from pydec.topology.graph import from_graph
from pydec.topology.validate import validate

__all__ = [
    "Matrix",
    "Topology",
    "base_k",
    "complete",
    "exponential",
    "from_graph",
    "make",
    "random_matching",
    "ring",
    "topologies",
    "validate",
]


def make(spec: str, size: int, seed: int = 0) -> Topology:
    """Build a topology by name.

    Args:
        spec: ``name`` or ``name:key=value``, for example ``"base-k:k=2"``; ``topologies`` lists the names.
        size: number of ranks, at least 1.
        seed: shared by all peers; only random topologies use it.

    Raises:
        ConfigError: unknown name or option, a value or a size that does not fit.
    """
    check_size(size)
    return topologies.make(spec, size=int(size), seed=seed)
