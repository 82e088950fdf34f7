"""Runs with a plot: one fault each, placed where it hurts; ``Violation`` if the replicas do not stand it."""

from __future__ import annotations

from collections.abc import Iterable

from pydec.consensus.messages import Vote, decode
from pydec.consensus.signed import Kind
from pydec.consensus.simulator.adversaries import ignores_the_lock
from pydec.consensus.simulator.network import Network
from pydec.consensus.simulator.oracles import Violation
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import CHAIN_ID, Place, World


def agree(
    world: World, at: float = 1.0, during: Iterable[int] = (), patience_s: float = 60.0, start: bool = True
) -> World:
    """Start a world, and see that a transaction of every honest place gets in everywhere.

    Args:
        world: not started, unless ``start`` is False.
        at: when the transactions that must get in are submitted; the world must be stable by then.
        during: places that submit one each at the very start.
        patience_s: simulated time that this may take.
        start: whether to start it.

    Raises:
        Violation: an oracle tripped, or time was up.
    """
    if start:
        world.start()
    world.run(world.now + 0.1)
    for number in during:
        world.submit(number, note(10_000 + number))
    world.run(at)
    first = 20_000 + 1000 * max(world.heights(), default=0)
    wanted = [note(first + place.number) for place in world.honest()]
    for place, transaction in zip(world.honest(), wanted, strict=True):
        if not world.submit(place.number, transaction):
            raise Violation(f"place {place.number} takes no transaction")

    def gossip() -> None:
        world.gossip_heads()
        world.at(world.now + 1.0, gossip)

    gossip()
    if not world.run(world.now + patience_s, lambda: world.settled(wanted)):
        raise Violation(f"no agreement within {patience_s} s; heights {world.heights()}")
    return world


def hops(stakes: list[int], submitter: int = 0) -> list[float]:
    """Message delays from a transaction at a place of an idle world to each commit.

    The transaction needs one delay to the leader if another node submits it; the protocol takes three.
    """
    delay_s = 0.001
    world = World(stakes, network=Network(delay_s=(delay_s, delay_s)), pace_s=10.0)
    world.start()
    world.run(10.0)
    before = world.watch.n_messages
    world.run(1e6)
    if world.watch.n_messages != before or not world.quiet():
        raise Violation("an idle world does something")
    began = world.now
    world.submit(submitter, note(1))
    world.run(began + 100.0)
    world.run(began + 1e7)
    if not world.quiet():
        raise Violation("a world with nothing left to decide does something")
    return [round((time - began) / delay_s, 6) for time, _, height, _ in world.commits if height == 1]


def hidden_commit(seed: int, adversary: bool = True) -> World:
    """Only place 3 sees the first block committed, and is then cut off; the next leader proposes another one.

    The others prepared the block, so their timeout certificate names it: honest nodes prepare nothing else.
    """
    isolated_s, healed_s = 0.5, 6.0
    network = Network(
        cut=lambda source, target, now: source == 3 or (target == 3 and now > isolated_s), stable_s=healed_s
    )
    world = World([1] * 4, seed, network)

    def only_to_3(place: Place, target: int, data: bytes) -> Iterable[bytes]:
        message = decode(data, CHAIN_ID)
        hidden = isinstance(message, Vote) and message.kind is Kind.COMMIT and message.height == 1
        return () if hidden and target != 3 and world.now < isolated_s else (data,)

    if adversary:
        world.corrupt(1, ignores_the_lock(world))
    for place in world.honest():
        place.outgoing = only_to_3
    world.start()
    world.run(0.1)
    world.submit(0, note(1))
    world.run(0.4)
    if [world.places[number].storage.head for number in (0, 2, 3)] != [0, 0, 1]:
        raise Violation(f"the plot failed: heights {world.heights()}")
    return agree(world, at=healed_s + 0.1, start=False)
