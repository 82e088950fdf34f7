"""Nodes, time and the event queue: one seed gives one run, to the last byte.

A *place* is one process: a replica, its disk and its timers. Usually a node has one place; twins are two
places with one key, which is how equivocation, lost state and double votes arise from unmodified code (Bano
et al., "Twins: BFT Systems Made Robust", OPODIS 2021, arXiv:2004.10617).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

from pydec.consensus.certificate import QuorumCertificate
from pydec.consensus.effects import (
    Append,
    Broadcast,
    CancelTimer,
    Committed,
    Effect,
    Halted,
    Persist,
    Report,
    Send,
    Serve,
    SetTimer,
    Started,
    Timer,
)
from pydec.consensus.member import Member
from pydec.consensus.messages import Decision, Proposal, Timeout, Vote, decode, encode
from pydec.consensus.pacemaker import Pacemaker
from pydec.consensus.record import SafetyRecord
from pydec.consensus.replica import Replica
from pydec.consensus.signed import Kind
from pydec.consensus.simulator.keys import Keyring
from pydec.consensus.simulator.network import Network
from pydec.consensus.simulator.oracles import Violation, Watch
from pydec.consensus.simulator.state import ToyState
from pydec.consensus.storage import MemoryStorage, Restored
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.errors import TransactionError

_SIGNED = (Proposal.TYPE, Vote.TYPE, Timeout.TYPE)
CHAIN_ID = b"\x5a" * 32
Outgoing: TypeAlias = Callable[["Place", int, bytes], Iterable[bytes]]


def as_is(place: Place, target: int, data: bytes) -> Iterable[bytes]:
    """What an honest node sends: the message."""
    return (data,)


@dataclass
class Place:
    """One process.

    Args:
        number: its place in the network.
        node_id: whose key it has; several places may have one.
        honest: follows the rules.
        storage: its disk.
        outgoing: turns a message to a target into what is sent; adversaries lie here.
        clock: its timers run this much slower than real time.
        replica_type: the replica's class; tests of the oracles use broken ones.
    """

    number: int
    node_id: bytes
    honest: bool = True
    storage: MemoryStorage = field(default_factory=MemoryStorage)
    outgoing: Outgoing = as_is
    clock: float = 1.0
    replica_type: type[Replica] = Replica
    replica: Replica | None = None
    timers: dict[Timer, int] = field(default_factory=dict)
    crash_after: int | None = None  # effects, each copy of a broadcast one of its own
    sound: bool = True
    restart_after: float | None = None
    started: dict[tuple[int, int], float] = field(default_factory=dict)
    halted: str | None = None
    n_restarts: int = 0


class Crashed(Exception):
    """A place has come to its crash point."""


class World:
    """One simulation.

    Args:
        stakes: of the nodes; a node with stake 0 only follows.
        seed: of every draw.
        network: how messages travel.
        places: which node each place is, by default one place each.
        pace_s: base of the timers at the beginning.
    """

    def __init__(
        self,
        stakes: list[int],
        seed: int = 0,
        network: Network | None = None,
        places: list[int] | None = None,
        pace_s: float = 0.2,
    ) -> None:
        self.draw = random.Random(seed)
        self.network, self.keys, self.now = network or Network(), Keyring(), 0.0
        self.pace_s = pace_s
        names = [self.keys.signer(f"node {number}").public for number in range(len(stakes))]
        self.nodes = sorted(names)
        members = [
            Validator(node, node, stake) for node, stake in zip(self.nodes, stakes, strict=True) if stake
        ]
        self.genesis = ToyState.genesis(CHAIN_ID, ValidatorTable.of(0, members), self.keys.verify)
        numbers = list(range(len(stakes))) if places is None else places
        self.places = [Place(place, self.nodes[node]) for place, node in enumerate(numbers)]
        self._at: dict[bytes, list[int]] = {}
        for place in self.places:
            self._at.setdefault(place.node_id, []).append(place.number)
        self.watch = Watch(self.genesis, self.keys, set(self.nodes))
        self.commits: list[tuple[float, int, int, int]] = []  # time, place, height, round
        self.peaks: dict[str, int] = {}
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self._timer_count = 0

    # ------------------------------------------------------------ control

    def corrupt(self, node: int, outgoing: Outgoing = as_is) -> None:
        """All places of a node may do as they like, and send what ``outgoing`` makes of their messages."""
        self.watch.honest.discard(self.nodes[node])
        for place in self.places:
            if place.node_id == self.nodes[node]:
                place.honest, place.outgoing = False, outgoing

    def honest(self) -> list[Place]:
        """Places that follow the rules."""
        return [place for place in self.places if place.honest]

    def start(self) -> None:
        """Start every place."""
        for place in self.places:
            self.boot(place)

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Do something at a time."""
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action))

    def run(self, until: float, done: Callable[[], bool] | None = None) -> bool:
        """Go on until that time, or until ``done``; whether it is done, or nothing is left to happen."""
        while self._queue:
            if self._queue[0][0] > until:
                break
            self.now, _, action = heapq.heappop(self._queue)
            action()
            if done is not None and done():
                return True
        else:
            return done is None or done()
        self.now = until
        return False

    def submit(self, number: int, transaction: bytes) -> bool:
        """A transaction at a place; False if it is down or refuses."""
        place = self.places[number]
        if place.replica is None:
            return False
        try:
            effects = place.replica.submit(transaction)
        except TransactionError:
            return False
        self._carry_out(place, effects)
        return True

    def gossip_heads(self) -> None:
        """What the trainer does all the time: every place tells every other how far it is."""
        for place in self.places:
            if place.replica is not None and place.halted is None:
                data = encode(place.replica.here(), CHAIN_ID)
                for other in self.places:
                    if other.node_id != place.node_id:
                        self._post(place, other.number, data)

    def crash(self, place: Place, down_s: float | None = None) -> None:
        """Stop a place; what its disk had not synced is gone. It starts again after ``down_s``, if given."""
        place.replica, place.crash_after = None, None
        place.timers.clear()
        place.storage.crash()
        if down_s is not None:
            self.at(self.now + down_s, lambda: self.boot(place) if place.replica is None else None)

    def boot(self, place: Place) -> None:
        """Start a place from its disk."""
        state, head = self.recover(place.storage)
        self.watch.restarted(place.number, head[0])
        signer = self.keys.of(place.node_id)
        member = Member(CHAIN_ID, place.node_id, signer, self.keys.verify)
        place.replica = place.replica_type(member, state, head, Pacemaker(self.pace_s, self.pace_s / 8))
        restored = place.storage.load()
        self._carry_out(place, place.replica.start(Restored(restored.record, restored.sound and place.sound)))

    def recover(self, storage: MemoryStorage) -> tuple[ToyState, tuple[bytes, QuorumCertificate | None]]:
        """State and head of a disk."""
        state = self.genesis
        head: tuple[bytes, QuorumCertificate | None] = (CHAIN_ID, None)
        for height in range(1, storage.head + 1):
            record = storage.record(height)
            assert record is not None
            decision = decode(record, CHAIN_ID)
            assert isinstance(decision, Decision)
            head = (decision.commit.block_hash, decision.commit)
            state = self.watch.states[decision.commit.block_hash]
        return state, head

    # ------------------------------------------------------------ effects

    def _carry_out(self, place: Place, effects: list[Effect]) -> None:
        try:
            for effect in effects:
                self._effect(place, effect)
        except Crashed:
            self.crash(place, place.restart_after)

    def _step(self, place: Place) -> None:
        if place.crash_after is not None:
            place.crash_after -= 1
            if place.crash_after < 0:
                raise Crashed

    def _effect(self, place: Place, effect: Effect) -> None:
        if isinstance(effect, SetTimer):
            self._set_timer(place, effect)
        elif isinstance(effect, CancelTimer):
            place.timers.pop(effect.timer, None)
        elif isinstance(effect, Broadcast):
            self._check_persisted(place, effect.data)
            for node in effect.nodes:
                self._send(place, node, effect.data)
        elif isinstance(effect, Send):
            self._send(place, effect.node, effect.data)
        elif isinstance(effect, Persist):
            self._step(place)
            place.storage.persist(effect.record)
            self._step(place)
        elif isinstance(effect, Append):
            self._step(place)
            place.storage.append(effect.height, effect.record)
            if place.honest:
                self.watch.appended(place.number, effect.height, effect.record)
            self._step(place)
        elif isinstance(effect, Committed):
            self._committed(place, effect)
        elif isinstance(effect, Started):
            place.started[effect.height, effect.round] = self.now
        elif isinstance(effect, Serve):
            for height in range(effect.first, effect.last + 1):
                record = place.storage.record(height)
                if record is not None:
                    self._send(place, effect.node, record)
        elif isinstance(effect, Report):
            if place.honest:
                self.watch.reported(place.number, effect)
        elif isinstance(effect, Halted):
            place.halted = effect.reason
            if place.honest and not self.watch.may_disagree:
                raise Violation(f"place {place.number} has stopped: {effect.reason}")

    def _check_persisted(self, place: Place, data: bytes) -> None:
        """What an honest place signs is on its disk, or its height is decided there, before it is sent."""
        if not place.honest or data[1] not in _SIGNED:
            return
        message = decode(data, CHAIN_ID)
        assert isinstance(message, Proposal | Vote | Timeout)
        stored = place.storage.load().record
        if message.height <= place.storage.head or (stored is not None and data in stored):
            return
        # Messages that waited for a height may lead through several rounds in one event; the newest counts.
        record = None if stored is None else SafetyRecord.decode(stored, CHAIN_ID)
        newest = -1
        if record is not None and record.height == message.height:
            newest = {Proposal: record.proposed, Timeout: record.timed_out}.get(type(message), newest)
            if isinstance(message, Vote):
                newest = record.prepared if message.kind is Kind.PREPARE else record.committed
        if newest <= message.round:
            raise Violation(
                f"place {place.number} sends a {type(message).__name__} that its disk does not have"
            )

    def _committed(self, place: Place, effect: Committed) -> None:
        height, round = effect.block.height, effect.certificate.round
        self.commits.append((self.now, place.number, height, round))
        began = place.started.pop((height, round), None)
        place.started = {slot: time for slot, time in place.started.items() if slot[0] > height}
        if began is not None and place.replica is not None:
            place.replica.measured((self.now - began) / place.clock)
        if place.replica is not None:
            for name, size in place.replica.sizes().items():
                self.peaks[name] = max(size, self.peaks.get(name, 0))

    def _set_timer(self, place: Place, effect: SetTimer) -> None:
        self._timer_count += 1
        token = place.timers[effect.timer] = self._timer_count

        def expire() -> None:
            if place.replica is not None and place.timers.get(effect.timer) == token:
                del place.timers[effect.timer]
                self._carry_out(place, place.replica.timer(effect.timer))

        self.at(self.now + effect.delay_s * place.clock, expire)

    def _send(self, place: Place, node: bytes, data: bytes) -> None:
        self._step(place)
        for target in self._at.get(node, ()):
            self._post(place, target, data)

    def _post(self, place: Place, target: int, data: bytes) -> None:
        for sent in place.outgoing(place, target, data):
            self.inject(place, target, sent)

    def inject(self, place: Place, target: int, data: bytes) -> None:
        """Bytes from one place to another, as the network carries them."""
        self.watch.sent(place.node_id, data)
        receiver, sender = self.places[target], place.node_id

        def deliver() -> None:
            if receiver.replica is not None and receiver.halted is None:
                self._carry_out(receiver, receiver.replica.receive(sender, data))

        for arrival in self.network.arrivals(place.number, target, self.now, self.draw):
            self.at(arrival, deliver)

    # ------------------------------------------------------------ judging

    def heights(self) -> list[int]:
        """Decided heights of the honest places."""
        return [place.storage.head for place in self.honest()]

    def settled(self, transactions: Iterable[bytes], places: Iterable[Place] | None = None) -> bool:
        """Whether the places (all honest ones) hold these transactions and agree on the head."""
        chosen = self.honest() if places is None else list(places)
        heads = {self.watch.heads.get(place.number) for place in chosen}
        if len(heads) != 1 or any(place.replica is None for place in chosen):
            return False
        head = heads.pop()
        state = self.watch.states[head or CHAIN_ID]
        return all(sha256(transaction).digest() in state.done for transaction in transactions)

    def quiet(self) -> bool:
        """Whether nothing is under way: no timer, no message."""
        return not any(place.timers for place in self.places) and not self._queue
