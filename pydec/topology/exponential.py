"""Exponential graphs: neighbours at distances that are powers of two."""

from __future__ import annotations

from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.circulant import Circulant, uniform


@topologies.register("exponential")
def exponential(size: int) -> Topology:
    """Rank r hears r + 2^k for every 2^k < size: ceil(log2(size)) messages per rank, directed.

    Spectral gap 2 / (1 + ceil(log2(size))) for even sizes, more for odd ones. Sizes 2 and 3 are
    complete graphs and exact in one round.

    Source: Ying, Yuan, Chen, Hu, Pan, Yin, "Exponential Graph is Provably Efficient for
    Decentralized Deep Training", NeurIPS 2021, arXiv:2110.13363, section 3.
    """
    check_size(size)
    offsets = (1 << k for k in range((size - 1).bit_length()))
    return Circulant("exponential", size, [uniform(size, offsets)], finite_time=1 if size <= 3 else None)


@topologies.register("one-peer-exponential")
def one_peer_exponential(size: int) -> Topology:
    """In round t rank r hears only r + 2^(t mod tau), tau = ceil(log2(size)), with weight 1/2.

    One message per rank and round, directed. Exact after tau rounds if size is a power of two, in
    any order of the rounds; for other sizes the disagreement shrinks to at most 1/4 per period.
    Base-k is exact for every size.

    Source: Ying, Yuan, Chen, Hu, Pan, Yin, "Exponential Graph is Provably Efficient for
    Decentralized Deep Training", NeurIPS 2021, arXiv:2110.13363, section 4.
    """
    check_size(size)
    tau = (size - 1).bit_length()
    rounds = [uniform(size, (1 << t,)) for t in range(tau)] or [uniform(size, ())]
    exact = size & (size - 1) == 0
    return Circulant("one-peer-exponential", size, rounds, finite_time=tau if exact else None)
