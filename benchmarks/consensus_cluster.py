"""Real replicas, keys and states in one process, messages handed over at once: what computing costs."""

from __future__ import annotations

import time
from collections import deque

from pydec.consensus.effects import Append, Broadcast, Committed, Effect, Send
from pydec.consensus.genesis import Genesis
from pydec.consensus.node import founders
from pydec.consensus.replica import Member, Replica
from pydec.consensus.transactions import Beacon, sign
from pydec.crypto.signing import SigningKey


class Cluster:
    """``size`` replicas of one chain; timers never run out and disks are memory.

    Attributes:
        records: what a ledger file of the first node would hold.
    """

    def __init__(self, size: int) -> None:
        self.keys = [SigningKey(number.to_bytes(32, "big")) for number in range(1, 1 + size)]
        self.genesis: Genesis = founders("bench", [key.public for key in self.keys])
        chain_id = self.genesis.chain_id
        self.replicas = {
            key.public: Replica(Member(chain_id, key.public, key), self.genesis.state(), (chain_id, None))
            for key in self.keys
        }
        self.records: list[bytes] = []
        self._commits = 0
        self._posted: deque[tuple[bytes, bytes, bytes]] = deque()  # to, from, bytes
        for name, replica in self.replicas.items():
            self._carry_out(name, replica.start())
        self._deliver()

    def decide(self) -> float:
        """Let all nodes commit one more transaction, which the leader has; processor seconds of all nodes."""
        key = self.keys[0]
        state = self.replicas[key.public].state
        account = state.accounts[key.public]  # type: ignore[attr-defined]
        beacon = sign(key, self.genesis.chain_id, account.sequence, Beacon(account.round + 1))
        leader = state.table[state.leader].node_id
        self._commits = 0
        began_s = time.process_time()
        self._carry_out(leader, self.replicas[leader].submit(beacon))
        self._deliver()
        spent_s = time.process_time() - began_s
        if self._commits != len(self.keys):
            raise RuntimeError(f"{self._commits} of {len(self.keys)} nodes committed")
        return spent_s

    def _deliver(self) -> None:
        while self._posted:
            to, sender, data = self._posted.popleft()
            self._carry_out(to, self.replicas[to].receive(sender, data))

    def _carry_out(self, name: bytes, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._posted.append((effect.node, name, effect.data))
            elif isinstance(effect, Broadcast):
                self._posted.extend((node, name, effect.data) for node in effect.nodes)
            elif isinstance(effect, Append) and name == self.keys[0].public:
                self.records.append(effect.record)
            elif isinstance(effect, Committed):
                self._commits += 1
