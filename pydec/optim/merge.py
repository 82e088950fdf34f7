"""One exact mean of all ranks' models by gossip on a finite-time graph: no all-reduce."""

from __future__ import annotations

from collections.abc import Sequence

from pydec import compress, topology
from pydec.comm.transport import Stream
from pydec.gossip import AverageMixer, Exchange
from pydec.optim.arena import Arena
from pydec.optim.facts import PeerLike


def merge(peer: PeerLike, arenas: Sequence[Arena], rounds: int) -> None:
    """Replace every arena's numbers by their mean over the ranks; all ranks call it together.

    Tensors of float64 receive the difference to the mean of their float32 values.

    Args:
        peer: this rank.
        arenas: parameters and buffers.
        rounds: rounds of gossip done, so that packets left over from them are recognised as old; the
            merge's own rounds begin at the first later multiple of its period.

    Raises:
        PeerTimeout, PeerLost, ProtocolError: a neighbour failed.
    """
    graph = topology.make("base-k:k=1", size=peer.size)
    plain = compress.make("none")
    for arena in arenas:
        arena.load()
    mixers = [AverageMixer(arena.vector, plain, graph.degree) for arena in arenas]
    exchange = Exchange(
        peer.transport.stream(Stream.COLLECT),
        graph,
        mixers,
        epoch=peer.view.epoch,
        seed=peer.view.seed,
        overlap=False,
    )
    first = -(-rounds // graph.period) * graph.period
    for round in range(first, first + (graph.finite_time or 0)):
        exchange.run(round)
    exchange.flush()
    for arena in arenas:
        arena.store()
