"""The complete graph: exact averaging in every round, at the cost of size - 1 messages."""

from __future__ import annotations

from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.circulant import Circulant, uniform


@topologies.register("complete")
def complete(size: int) -> Topology:
    """Every rank hears every other with weight 1 / size: size - 1 messages per rank, exact in 1 round."""
    check_size(size)
    return Circulant("complete", size, [uniform(size, range(size))], finite_time=1)
