"""Who a rank hears and who listens to it, without those that are gone or in another view."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from pydec.comm.frames import Kind
from pydec.compress.base import Bytes
from pydec.errors import PeerTimeout
from pydec.gossip.packets import read_frame
from pydec.topology.base import Topology


def neighbourhood(
    topology: Topology, rank: int, round: int, gone: AbstractSet[int]
) -> tuple[float, dict[int, float], list[int]]:
    """The living part of a rank's row in one round.

    What a rank would give to listeners that are gone it keeps, so the columns of W sum to 1 without the rows
    and columns of the dead. Where W is symmetric so do the rows, and the mean over the survivors is kept.
    On one-way graphs only push-sum uses that own weight; the mean of others drifts by what goes one way.

    Args:
        topology: who hears whom.
        rank: whose row.
        round: of gossip.
        gone: ranks to leave out.

    Returns:
        The sum of the row's weights, its own included; {rank heard: weight}; the ranks that listen.
    """
    own, heard = topology.row(rank, round)
    listeners = topology.listeners(rank, round)
    for peer in sorted(gone & {*listeners}):
        own += topology.row(peer, round)[1][rank]
    kept = {peer: weight for peer, weight in heard.items() if peer not in gone}
    return own + sum(kept.values()), kept, [peer for peer in listeners if peer not in gone]


def elsewhere(peer: int, message: Bytes, epoch: int, round: int) -> bool:
    """Whether a neighbour plays this round in another view: it counts as late, and sends nothing more.

    Where views change in the same round on all, nobody does; who learns of a view too late is left out,
    and leaves out, until it switches.
    """
    frame = read_frame(peer, message)
    return frame.kind is Kind.GOSSIP and frame.epoch != epoch and frame.round == round


def absent(error: PeerTimeout, round: int) -> PeerTimeout:
    """The error for a packet of that round that did not come."""
    return PeerTimeout(
        error.peer,
        f"sent no packet of round {round} ({error}): it is slow, hangs, or was restarted in another round; "
        "ranks that are restarted must all go on from the same checkpoint",
    )
