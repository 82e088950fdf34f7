"""Runs with a plot: one fault each, placed where it hurts; ``Violation`` if the replicas do not stand it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from pydec.consensus.application import LedgerState
from pydec.consensus.deaths import Deaths, Submit
from pydec.consensus.effects import Broadcast, Report
from pydec.consensus.member import Member
from pydec.consensus.messages import Vote, decode
from pydec.consensus.signed import Kind
from pydec.consensus.simulator.adversaries import ignores_the_lock
from pydec.consensus.simulator.network import Network
from pydec.consensus.simulator.oracles import Violation
from pydec.consensus.simulator.state import note, set_stake
from pydec.consensus.simulator.world import CHAIN_ID, Place, World
from pydec.consensus.validators import Validator


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


def death(seed: int, size: int = 5, delay_s: tuple[float, float] = (0.001, 0.001)) -> tuple[float, World]:
    """A node dies in an idle world; just more than a third of the nodes see it, and the others believe them.

    Returns:
        Longest message delays from the last signature that a quorum needed to the death's commit at a living
        node, and the world. The dead node does not lead, or a timer would have to pass first.
    """
    world = World([1] * size, seed, Network(delay_s=delay_s), pace_s=10.0)
    world.start()
    world.run(10.0)
    leader = world.genesis.leader
    dead = world.draw.choice([number for number in range(size) if number != leader])
    world.crash(world.places[dead])
    victim = world.places[dead].node_id
    living = [place for place in world.places if place.number != dead]
    signed_s: dict[int, float] = {}

    def make(number: int) -> Deaths:
        node = world.places[number].node_id
        member = Member(CHAIN_ID, node, world.keys.of(node), world.keys.verify)
        return Deaths(
            member,
            lambda: 100 + number,
            lambda state: {validator.node_id for validator in state.table.validators},
            lambda body: set_stake(Validator(body.node, body.node, 0)),
        )

    deaths = {place.number: make(place.number) for place in living}

    def state(number: int) -> LedgerState:
        replica = world.places[number].replica
        assert replica is not None
        return replica.state

    def carry(number: int, done: Iterable[object]) -> None:
        for effect in done:
            if isinstance(effect, Report):
                raise Violation(f"place {number} reports {effect.reason}")
            if isinstance(effect, Submit):
                world.submit(number, effect.transaction)
            elif isinstance(effect, Broadcast):
                signed_s.setdefault(number, world.now)
                for other in living:
                    if other.node_id in effect.nodes:
                        for arrival in world.network.arrivals(number, other.number, world.now, world.draw):
                            world.at(arrival, partial(hear, other.number, number, effect.data))

    def hear(number: int, sender: int, data: bytes) -> None:
        carry(number, deaths[number].receive(state(number), world.places[sender].node_id, data))

    def saw(number: int) -> None:
        carry(number, deaths[number].suspect(state(number), victim))

    for place in world.draw.sample(living, size // 3 + 1):
        world.at(world.now + world.draw.uniform(0.0, 0.01), partial(saw, place.number))
    gone = [place.number for place in living]
    if not world.run(world.now + 60.0, lambda: all(state(n).table.index(victim) is None for n in gone)):
        raise Violation(f"node {dead} was not evicted; heights {world.heights()}")
    quorum = next(count for count in range(size) if world.genesis.table.quorum(count))
    began_s = sorted(signed_s.values())[quorum - 1]
    last_s = max(time for time, number, height, _ in world.commits if height == 1 and number in gone)
    return round((last_s - began_s) / delay_s[1], 6), world
