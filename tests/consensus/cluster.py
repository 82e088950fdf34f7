"""Real replicas, state, keys and files, the files on a lossy disk; time and network are simulated."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydec.consensus import effects as fx
from pydec.consensus.certificate import Verifier
from pydec.consensus.file_storage import FileStorage, create
from pydec.consensus.genesis import Genesis
from pydec.consensus.handover import Shelf
from pydec.consensus.joining import Joining
from pydec.consensus.messages import encode
from pydec.consensus.pacemaker import Pacemaker
from pydec.consensus.rejoin import Rejoin
from pydec.consensus.replay import recover
from pydec.consensus.replica import Member, Replica
from pydec.consensus.state.chain import ChainState
from pydec.consensus.transactions import Body, sign
from pydec.crypto.signing import verify
from tests.consensus.lossy_disk import LossyDisk
from tests.consensus.world import key

PACE_S = 0.2
LEDGER = Path("/ledger")
_shared = Verifier(verify, 1 << 16)  # one signature is verified once, whoever gets it


class Node:
    """One node: its key, disk, and, while it runs, files and replica."""

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.key, self.disk = name, key(name), LossyDisk(seed)
        self.storage: FileStorage | None = None
        self.replica: Replica | None = None
        self.timers: dict[fx.Timer, int] = {}
        self.reports: list[str] = []
        self.accused: list[tuple[bytes, str]] = []
        self.rejoin: Rejoin | None = None
        self.joining: Joining | None = None
        self.shelf = Shelf()
        self.pins: dict[int, bytes] = {}
        self.ticking = False

    @property
    def files(self) -> FileStorage:
        assert self.storage is not None
        return self.storage

    @property
    def state(self) -> ChainState:
        assert self.replica is not None
        assert isinstance(self.replica.state, ChainState)
        return self.replica.state


class Cluster:
    """Nodes named by letters; those of the genesis vote, others follow until they join."""

    def __init__(self, genesis: Genesis, names: str, seed: int = 0) -> None:
        self.genesis, self.draw, self.now = genesis, random.Random(seed), 0.0
        self.nodes = {name: Node(name, seed * 100 + number) for number, name in enumerate(names)}
        self._by_id = {node.key.public: node for node in self.nodes.values()}
        self._queue: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self.loss = 0.0
        self.outgoing: Callable[[Node, Node, bytes], bytes | None] = lambda sender, target, data: data
        for node in self.nodes.values():
            create(LEDGER, genesis, node.disk)
            self.boot(node)

    def boot(self, node: Node) -> None:
        """Start a node from its disk."""
        node.storage = FileStorage(LEDGER, node.key.public, node.disk)
        found = recover(node.storage, self.genesis, _shared)
        member = Member(self.genesis.chain_id, node.key.public, node.key, _shared.check)
        node.replica = Replica(member, found.state, (found.head, found.commit), Pacemaker(PACE_S, PACE_S / 8))
        node.shelf = found.shelf
        node.joining = Joining(node.replica, node.storage, node.shelf, node.pins)
        self._carry_out(node, node.replica.start(node.storage.load()))

    def crash(self, name: str) -> None:
        """Stop a node; what its disk had not synced is lost."""
        node = self.nodes[name]
        node.replica = node.storage = node.joining = None
        node.timers.clear()
        node.disk.crash()

    def submit(self, name: str, body: Body, sequence: int | None = None) -> bytes:
        """A transaction of a node, at that node."""
        node = self.nodes[name]
        known = node.state.accounts.get(node.key.public)
        number = sequence if sequence is not None else known.sequence if known else 0
        data = sign(node.key, self.genesis.chain_id, number, body)
        self.give(name, data)
        return data

    def give(self, name: str, data: bytes) -> None:
        """A transaction at a node."""
        node = self.nodes[name]
        assert node.replica is not None
        self._carry_out(node, node.replica.submit(data))

    def run(self, done: Callable[[], bool], patience_s: float = 60.0) -> None:
        """Go on until ``done``; peers' heads are gossiped as the trainer would."""
        end = self.now + patience_s
        while not done():
            if not self._queue:
                self.now += 1.0
                self._gossip()
                assert self.now < end, "the cluster is stuck"
                continue
            self.now, _, action = heapq.heappop(self._queue)
            assert self.now < end, "the cluster is stuck"
            action()

    def pass_time(self, seconds: float) -> None:
        """Let everything happen that falls into that time."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def settle(self, height: int, names: str | None = None) -> ChainState:
        """Run until these nodes (all that run if None) have that height and one state root."""
        nodes = [node for node in self.nodes.values() if node.replica and node.name in (names or node.name)]
        self.run(lambda: all(node.state.height >= height for node in nodes))
        self.run(lambda: len({node.state.root() for node in nodes}) == 1)
        return nodes[0].state

    def audit(self) -> None:
        """Every ledger replays from where it begins with every signature, and none was framed."""
        for node in self.nodes.values():
            if node.storage is not None:
                assert recover(node.storage, self.genesis, _shared).state == node.state

    def inject(self, sender: str, target: str, message) -> None:
        """Bytes of one node to another, whatever its replica thinks."""
        data = encode(message, self.genesis.chain_id)
        self._post(self.nodes[sender], self.nodes[target].key.public, data)

    def _gossip(self) -> None:
        for node in self.nodes.values():
            if node.replica is not None:
                data = encode(node.replica.here(), self.genesis.chain_id)
                for other in self._by_id:
                    self._post(node, other, data)
                self._tick(node)

    def _tick(self, node: Node) -> None:
        """What the driver does all the time; here after messages, and again as long as it waits for some."""
        if node.joining is None:
            return
        self._carry_out(node, node.joining.tick(self.now))
        if node.joining.active and not node.ticking:
            node.ticking = True
            self._at(self.now + PACE_S, partial(self._tick_again, node))

    def _tick_again(self, node: Node) -> None:
        node.ticking = False
        self._tick(node)

    def _at(self, time: float, action: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, action))

    def _post(self, node: Node, target: bytes, data: bytes) -> None:
        receiver = self._by_id.get(target)
        sent = None if receiver is None or receiver is node else self.outgoing(node, receiver, data)
        if receiver is None or sent is None or self.draw.random() < self.loss:
            return

        def deliver() -> None:
            if receiver.replica is None or receiver.joining is None:
                return
            if receiver.joining.takes(sent):
                self._carry_out(receiver, receiver.joining.receive(self.now, node.key.public, sent))
            else:
                self._carry_out(receiver, receiver.replica.receive(node.key.public, sent))
            self._tick(receiver)

        self._at(self.now + self.draw.uniform(0.001, 0.01), deliver)

    def _carry_out(self, node: Node, effects: list[fx.Effect]) -> None:
        storage = node.storage
        assert storage is not None
        for effect in effects:
            if isinstance(effect, fx.Persist):
                storage.persist(effect.record)
            elif isinstance(effect, fx.Append):
                storage.append(effect.height, effect.record)
            elif isinstance(effect, fx.Send):
                self._post(node, effect.node, effect.data)
            elif isinstance(effect, fx.Broadcast):
                for target in effect.nodes:
                    self._post(node, target, effect.data)
            elif isinstance(effect, fx.Serve):
                for height in range(effect.first, effect.last + 1):
                    if (record := storage.record(height)) is not None:
                        self._post(node, effect.node, record)
            elif isinstance(effect, fx.SetTimer):
                self._set_timer(node, effect)
            elif isinstance(effect, fx.CancelTimer):
                node.timers.pop(effect.timer, None)
            elif isinstance(effect, fx.Report):
                node.reports.append(effect.reason)
                node.accused.append((effect.node, effect.reason))
            elif isinstance(effect, fx.Committed):
                if node.joining is not None:
                    node.joining.committed(effect)
                back = node.rejoin.due(node.state) if node.rejoin is not None else None
                if back is not None:
                    self._at(self.now, partial(self.give, node.name, back))
            else:
                assert not isinstance(effect, fx.Halted), effect

    def _set_timer(self, node: Node, effect: fx.SetTimer) -> None:
        self._count += 1
        token = node.timers[effect.timer] = self._count

        def expire() -> None:
            if node.replica is not None and node.timers.get(effect.timer) == token:
                del node.timers[effect.timer]
                self._carry_out(node, node.replica.timer(effect.timer))

        self._at(self.now + effect.delay_s, expire)
