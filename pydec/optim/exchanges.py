"""Which exchange carries an algorithm's packets, and what is asked of all of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypedDict, cast

from pydec.comm.transport import Stream
from pydec.errors import ConfigError
from pydec.gossip import Asynchronous, Exchange, Mixer
from pydec.gossip.accountable import accountable
from pydec.gossip.exchange import Late, Lost
from pydec.gossip.gpu import GpuExchange
from pydec.gossip.packets import name_of
from pydec.gossip.place import Place
from pydec.gossip.robust.exchange import tolerant
from pydec.gossip.switch import exchange_of
from pydec.gossip.two_level import LeaderExchange, can_lead
from pydec.gossip.witness import Witness
from pydec.optim.facts import PeerLike
from pydec.optim.plan import Plan
from pydec.topology.base import Topology
from pydec.topology.hierarchical import Hierarchical

AnyExchange = Exchange | LeaderExchange | Asynchronous


class Rules(TypedDict):
    """What every exchange with rounds is asked for, whichever it is."""

    budget: int
    late: Late
    lost: Lost
    epoch: int
    seed: int
    overlap: bool


def make_exchange(
    peer: PeerLike,
    plan: Plan,
    topology: Topology,
    mixers: Sequence[Mixer],
    place: Place | None = None,
    witness: Witness | None = None,
) -> AnyExchange:
    """The exchange of checked parts, on the peer's GOSSIP stream.

    Args:
        peer: this rank.
        plan: how the ranks gossip.
        topology: of the plan, or of the members of a view.
        mixers: one per vector.
        place: the GPU that the vectors lie on; None for host memory.
        witness: signs packets and compares those of others, where ``check_accountable`` allows it.

    Raises:
        ConfigError: mixing is to be measured, and no packet holds a model.
    """
    link, epoch, seed = peer.transport.stream(Stream.GOSSIP), peer.view.epoch, peer.view.seed
    algorithm, measure = plan.algorithm, plan.measures
    for mixer in mixers:
        mixer.algorithm = name_of(algorithm)
    if algorithm.asynchronous:
        return algorithm.connect(link, topology, mixers, epoch=epoch, seed=seed)
    if measure and not any(mixer.move_scale for mixer in mixers):
        raise ConfigError(
            f"{type(algorithm).__name__} does not send the models themselves, so a round does not show how "
            "far apart they are; use mixing='fixed' and consensus_distance(), or an algorithm that sends "
            "models, such as 'dpsgd:order=atc', 'exact-diffusion' or 'gradient-tracking'"
        )
    rules = Rules(
        budget=algorithm.budget,
        late=plan.late,
        lost=plan.losing,
        epoch=epoch,
        seed=seed,
        overlap=algorithm.order == "cta",
    )
    exchange: Exchange | LeaderExchange
    if witness is not None:
        kind = accountable(tolerant(exchange_of(mixers), mixers))
        exchange = kind(link, topology, mixers, witness=witness, measure=measure, **rules)
    elif place is not None:
        direct = link.takes_gpu_memory
        on_gpu = cast(type[GpuExchange], tolerant(GpuExchange, mixers))
        exchange = on_gpu(link, topology, mixers, place=place, direct=direct, measure=measure, **rules)
    elif can_lead(topology, mixers, measure=measure):
        exchange = LeaderExchange(link, cast(Hierarchical, topology), mixers, **rules)
    else:
        exchange = tolerant(exchange_of(mixers), mixers)(link, topology, mixers, measure=measure, **rules)
    if plan.background:
        exchange.move_in_background()
    return exchange


def leave(exchange: AnyExchange) -> None:
    """End what is under way without a trace in the models; all ranks together."""
    if exchange.pending:
        exchange.finish(mix=False)
    if isinstance(exchange, Asynchronous):
        exchange.flush(mix=False)
    else:
        exchange.flush()


def end(exchange: AnyExchange, staying: Collection[int]) -> None:
    """Close an exchange between two rounds, for another one: what staying ranks still take is waited for."""
    if not isinstance(exchange, Asynchronous):
        exchange.end(staying)
    exchange.close()


def quiet(exchange: AnyExchange) -> AbstractContextManager[object]:
    """Within, nothing changes vectors beside the program, as asynchronous exchanges do."""
    return exchange.lock if isinstance(exchange, Asynchronous) else nullcontext()
