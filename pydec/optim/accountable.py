"""Which decentralised optimisers can sign what they send, and how one begins to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydec.comm.view import View
from pydec.errors import ConfigError
from pydec.gossip.base import Mixer
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.exchange import Exchange
from pydec.gossip.place import Place
from pydec.gossip.robust.lying import LyingMixer
from pydec.gossip.two_level import can_lead
from pydec.gossip.witness import Witness
from pydec.optim.plan import Plan
from pydec.topology.base import Topology

if TYPE_CHECKING:
    from pydec.optim.optimizer import DecentralizedOptimizer


def hold_to_account(optimizer: DecentralizedOptimizer, witness: Witness) -> None:
    """Sign every packet of gossip from the next round on, and take only signed ones.

    All ranks call it between the same two steps. A round that is under way begins again. What merges, means
    and evaluations send is not signed.

    Args:
        optimizer: of this rank.
        witness: of this rank.

    Raises:
        ConfigError: its packets are not the same for all who listen; see ``check_accountable``.
    """
    check(optimizer)
    rounds = optimizer._rounds
    assert rounds is not None
    rounds.hold_to_account(witness)


def standing(optimizer: DecentralizedOptimizer) -> tuple[Topology, View, frozenset[int]]:
    """Graph and view of the round that comes next, and which of its members are dead."""
    assert optimizer._rounds is not None
    exchange = optimizer._rounds.exchange
    assert isinstance(exchange, Exchange)
    view = optimizer.peer.view
    return exchange.topology, view, frozenset(exchange.gone.intersection(view.members))


def check(optimizer: DecentralizedOptimizer) -> None:
    """Refuse what cannot be held to account, see ``check_accountable``; the same on all ranks.

    Raises:
        ConfigError: with the reason and what to use.
    """
    rounds = optimizer._rounds
    if rounds is None:
        raise ConfigError(
            "accountable gossip signs what every rank sends to its neighbours, and allreduce sends partial "
            "sums; use an algorithm of gossip, such as dpsgd or --aggregate cs-plus"
        )
    check_accountable(rounds.plan, rounds.mixers, rounds.place)


def check_accountable(plan: Plan, mixers: Iterable[Mixer], place: Place | None) -> None:
    """Refuse what cannot be held to account: a claim says what *all* who listen are sent in a round.

    Args:
        plan: how the ranks gossip.
        mixers: of all vectors.
        place: the GPU that they are on.

    Raises:
        ConfigError: ranks step at their own pace; neighbours get different packets by design; a packet that
            is dropped would be missing in sums over the ranks; a GPU or a node's leader makes the packets.
    """
    name, mixers = type(plan.algorithm).__name__, list(mixers)
    use = "use dpsgd or a robust rule, such as --aggregate cs-plus"
    if plan.algorithm.asynchronous:
        raise ConfigError(f"accountable gossip compares what was sent in a round, and {name} has none; {use}")
    if any(isinstance(mixer, EdgeMixer) and not isinstance(mixer, LyingMixer) for mixer in mixers):
        raise ConfigError(
            f"accountable gossip compares what different neighbours were sent, and {name} sends every one "
            f"something else by design; {use}"
        )
    if not plan.algorithm.tolerates_loss:
        raise ConfigError(
            f"accountable gossip drops what is not signed, and {name} cannot do without a packet; {use}"
        )
    if can_lead(plan.topology, mixers, measure=plan.measures):
        raise ConfigError(
            f"accountable gossip signs what a rank sends, and on {plan.topology.name} the first of every "
            "node sends for all of it; use another topology, such as random-regular:degree=6"
        )
    if place is not None:
        raise ConfigError("accountable gossip signs packets in host memory; use gossip_device='cpu'")
