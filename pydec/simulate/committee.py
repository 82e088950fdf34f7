"""A ledger of many peers: a committee drawn by stake decides, and all others learn the view by gossip.

The replicas are those of a run. Who has no seat follows: with each round of training every peer sends its
head (epoch, height, hash; 58 bytes) to those who hear it anyway, whoever is told of a height that it lacks
asks for the blocks, and a block proves itself by its certificate. So a view reaches everybody within about as
many rounds as an average does, and a member's traffic does not grow with the number of those who follow.

A block with a REDRAW ends the epoch: the next committee is drawn by the hash of the block before it, which a
quorum decided when nobody knew who would end the epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydec.codec.wire import u64
from pydec.consensus.block import Block, Header
from pydec.consensus.certificate import Verifier, Verify
from pydec.consensus.committee import draw
from pydec.consensus.leader import advance
from pydec.consensus.light import EpochStep, LightClient, encode_step
from pydec.consensus.messages import Decision, decode, encode
from pydec.consensus.simulator.network import Network
from pydec.consensus.simulator.oracles import Watch
from pydec.consensus.simulator.state import ToyState, note
from pydec.consensus.simulator.world import CHAIN_ID, Place, World
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.errors import ConfigError, TransactionError
from pydec.topology.base import Topology

REDRAW = b"r"
MOST_PEERS = 4096  # a replica each, about 20 kB
_PATIENCE = 400  # rounds


def redraw(number: int) -> bytes:
    """The transaction that ends an epoch; once each."""
    return REDRAW + u64(number)


@dataclass(frozen=True)
class CommitteeState(ToyState):
    """A ``ToyState`` whose table is a committee.

    Args:
        candidates: who may sit, with their stake.
        seats: of a committee.
        redraws: executed so far.
    """

    candidates: tuple[Validator, ...] = ()
    seats: int = 1
    redraws: int = 0
    drawn: dict[bytes, ValidatorTable] = field(default_factory=dict, repr=False, compare=False)
    """Committees by the block that they were drawn by, which all places share: each would draw the same."""

    @classmethod
    def first(cls, candidates: tuple[Validator, ...], seats: int, verify: Verify) -> CommitteeState:
        """Height 0; the first committee is drawn by the chain's id."""
        table = draw(0, candidates, _seed(CHAIN_ID), seats)
        leader, priorities = advance(table, (0,) * len(table), range(len(table)))
        return cls(
            CHAIN_ID, verify, 0, table, table, leader, priorities, tables=(table,), candidates=candidates,
            seats=seats,
        )  # fmt: skip

    def check(self, transaction: bytes) -> None:
        """As ``ToyState.check``; stake does not change while a committee sits."""
        if transaction[:1] != REDRAW:
            super().check(transaction)
        elif transaction != redraw(self.redraws):
            raise TransactionError(f"committee {self.redraws} sits; a redraw of another one is too late")

    def _apply(self, transaction: bytes) -> ToyState:
        after = super()._apply(transaction)
        if transaction[:1] == REDRAW:
            after = replace(after, redraws=self.redraws + 1)  # type: ignore[call-arg]  # of this class
        return after

    def _next(self, before: ToyState, header: Header) -> ToyState:
        assert isinstance(before, CommitteeState)
        if self.redraws == before.redraws:
            return super()._next(before, header)
        table = self.drawn.get(header.parent_hash)
        if table is None:
            table = draw(before.table.epoch + 1, self.candidates, _seed(header.parent_hash), self.seats)
            table = self.drawn[header.parent_hash] = ValidatorTable(before.table.epoch, table.validators)
        return super(CommitteeState, replace(self, table=table))._next(before, header)


def _seed(block_hash: bytes) -> int:
    return int.from_bytes(block_hash, "big")


class CommitteeWorld(World):
    """Simulated peers of which a committee decides; heads go along a topology, once a round.

    Args:
        stakes: of the peers.
        seats: of a committee.
        topology: who hears whom, of as many ranks.
        seed: of every draw of the network.
        network: how messages travel.
        round_s: between rounds of training.

    Attributes:
        sent: bytes that each place has sent.

    Raises:
        ConfigError: sizes that do not fit, or more peers than memory is planned for.
    """

    def __init__(
        self,
        stakes: list[int],
        seats: int,
        topology: Topology,
        *,
        seed: int = 0,
        network: Network | None = None,
        round_s: float = 1.0,
    ) -> None:
        if topology.size != len(stakes):
            raise ConfigError(f"{topology.name} is of {topology.size} ranks, and there are {len(stakes)}")
        if len(stakes) > MOST_PEERS:
            raise ConfigError(f"committees are simulated for at most {MOST_PEERS} peers, got {len(stakes)}")
        super().__init__(stakes, seed, network)
        candidates = tuple(
            Validator(node, node, stake) for node, stake in zip(self.nodes, stakes, strict=True)
        )
        self.genesis: CommitteeState = CommitteeState.first(candidates, seats, self.keys.verify)
        self.watch = Watch(self.genesis, self.keys, set(self.nodes))
        self.topology, self.round_s, self.round = topology, round_s, 0
        self.sent = [0] * len(stakes)

    def inject(self, place: Place, target: int, data: bytes) -> None:
        """As ``World.inject``, counted."""
        self.sent[place.number] += len(data)
        super().inject(place, target, data)

    def gossip_heads(self) -> None:
        """Every place tells those who hear it in this round of training how far it is."""
        for place in self.places:
            if place.replica is not None and place.halted is None:
                data = encode(place.replica.here(), CHAIN_ID)
                for listener in self.topology.listeners(place.number, self.round):
                    self._post(place, listener, data)

    def train(self, done: Callable[[], bool], most: int = _PATIENCE) -> int:
        """Go through rounds of training until ``done``; how many it took.

        Raises:
            TimeoutError: more than ``most``.
        """
        began = self.round
        while not done():
            if self.round - began >= most:
                raise TimeoutError(f"after {most} rounds the heights are {sorted(set(self.heights()))}")
            self.gossip_heads()
            self.round += 1
            self.run(self.now + self.round_s)
        return self.round - began

    def everybody_has(self, height: int) -> bool:
        """Whether all honest places have decided that height."""
        return min(self.heights()) >= height

    def members(self) -> list[Place]:
        """Honest places with a seat in the newest committee that any of them knows."""
        running = self._running()
        tables = (place.replica.state.table for place in running if place.replica is not None)
        newest = max(tables, key=lambda table: table.epoch)
        return [place for place in running if newest.index(place.node_id) is not None]

    def _running(self) -> list[Place]:
        return [place for place in self.honest() if place.replica is not None]

    def steps(self) -> list[EpochStep]:
        """The changes of committee so far, as a light client follows them; of the place that is furthest."""
        place = max(self._running(), key=lambda place: place.storage.head)
        found, parent = [], CHAIN_ID
        for height in range(1, place.storage.head + 1):
            record = place.storage.record(height)
            assert record is not None
            decision = decode(record, CHAIN_ID)
            assert isinstance(decision, Decision)
            before, after = self.watch.states[parent], self.watch.states[decision.commit.block_hash]
            if after.table.epoch != before.table.epoch:
                found.append(EpochStep(Block.decode(decision.block).header, decision.commit, after.table))
            parent = decision.commit.block_hash
        return found


@dataclass(frozen=True)
class Epoch:
    """What one change of committee came to.

    Args:
        deciding_rounds: rounds of training from the transaction at a member to the first peer that had the
            block.
        spreading_rounds: from there until all peers had it.
        member_bytes, peer_bytes: sent meanwhile, heads included: the means over those who sat before and over
            all others.
        light_bytes: what a light client downloads of it.
    """

    deciding_rounds: int
    spreading_rounds: int
    member_bytes: float
    peer_bytes: float
    light_bytes: int


def epochs(world: CommitteeWorld, number: int) -> list[Epoch]:
    """Start a world and let its committees hand over so many times; each is drawn, meets and decides.

    Every new committee also decides a note, so that it is shown to work. At the end a light client follows
    from the first committee to the last by their certificates alone.

    Raises:
        TimeoutError: a block was not decided, or did not reach everybody.
        Violation: an oracle tripped.
        LedgerError: the light client refused what the committees decided.
    """
    world.start()
    world.run(world.now + world.round_s)
    found = []
    for index in range(number):
        height = max(world.heights())
        sitting = {place.number for place in world.members()}
        before = list(world.sent)
        if not world.submit(min(sitting), redraw(index)):
            raise TimeoutError(f"place {min(sitting)} takes no transaction")
        deciding = world.train(lambda: max(world.heights()) > height)  # noqa: B023  # called at once
        spreading = world.train(lambda: world.everybody_has(height + 1))  # noqa: B023
        sent = [after - now for after, now in zip(world.sent, before, strict=True)]
        others = [n_bytes for place, n_bytes in enumerate(sent) if place not in sitting]
        light = len(encode_step(world.steps()[-1]))
        members = [sent[place] for place in sitting]
        found.append(Epoch(deciding, spreading, _mean(members), _mean(others), light))
        world.submit(world.members()[0].number, note(index))
        world.train(lambda: world.everybody_has(height + 2))  # noqa: B023
    client = LightClient(CHAIN_ID, world.genesis.table, verifier=Verifier(world.keys.verify))
    client.follow(world.steps())
    if client.table.epoch != number:
        raise AssertionError(f"a light client came to epoch {client.table.epoch} of {number}")
    return found


def _mean(values: list[int]) -> float:
    return sum(values) / max(1, len(values))
