"""The ring: two neighbours, whatever the number of ranks."""

from __future__ import annotations

from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.circulant import Circulant, uniform


@topologies.register("ring")
def ring(size: int) -> Topology:
    """Rank r hears r - 1 and r + 1, with weight 1/3 each: 2 messages per rank.

    Spectral gap 2/3 (1 - cos(2 pi / size)) for size > 3, about 4 pi^2 / (3 size^2). Sizes 2 and 3
    are complete graphs and exact in one round. The smallest eigenvalue is -1/3 for even sizes > 2,
    where the D2 method is at its limit of stability.
    """
    check_size(size)
    return Circulant("ring", size, [uniform(size, (-1, 1))], finite_time=1 if size <= 3 else None)
