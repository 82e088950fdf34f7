"""Agreeing that a member is dead: signed shares, gathered by everybody, until a quorum's make a transaction.

An idle ledger makes no blocks, so nobody is absent from any. A member that sees another dead signs that it
holds it so, and the training round that it will not begin before it knows what became of it; every member
gathers the shares, and whoever has a quorum's submits ``transactions.Dead``. More than a third of the stake
convince a member that sees nothing itself: one of them is honest. There is no coordinator, and a share counts
in its epoch alone: in the next one, what is still to be said is signed again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydec.consensus.attestation import Attestation, attest, check_share, collect
from pydec.consensus.effects import Broadcast, Report
from pydec.consensus.member import Member
from pydec.consensus.transactions import Dead, prove, statement
from pydec.consensus.validators import ValidatorTable
from pydec.errors import SignatureError

SHARE = 0xA2  # first byte; see ``hello.ASK``
_SHARE = struct.Struct(">BQ32sQ64s")  # first byte, epoch, node, round, signature
_ROUNDS = 1 << 62
_NOBODY = Attestation(b"", ())


@dataclass(frozen=True, slots=True)
class Submit:
    """Ask the ledger for a transaction."""

    transaction: bytes


Effect: TypeAlias = Broadcast | Report | Submit


class Deaths:
    """One node's shares and everybody's; no I/O. One thread uses it, others read ``hold``.

    Args:
        member: this node.
        promise: the training round that this node can promise not to begin before a death that is signed now
            is decided.
        subjects: node ids of the members of a state, who can be held for dead.
        make: the transaction of a body.

    Attributes:
        hold: round that must not begin before a decision; None if there is nothing to decide.
    """

    def __init__(
        self,
        member: Member,
        promise: Callable[[], int],
        subjects: Callable[[Any], Collection[bytes]],
        make: Callable[[Dead], bytes] = prove,
    ) -> None:
        self.promise = promise
        self.hold: int | None = None
        self._member, self._subjects, self._make = member, subjects, make
        self._epoch = -1
        self._mine: dict[bytes, int] = {}  # by node: the round promised
        self._shares: dict[bytes, dict[int, tuple[int, bytes]]] = {}  # by node and signer

    @property
    def waiting(self) -> frozenset[bytes]:
        """Nodes that this one holds for dead and the ledger does not yet."""
        return frozenset(self._mine)

    def suspect(self, state: Any, node: bytes) -> list[Effect]:
        """This node sees another one dead; the state is the newest."""
        self._enter(state)
        if node in self._mine or node == self._member.node_id or node not in self._subjects(state):
            return []
        self._mine[node] = min(max(0, self.promise()), _ROUNDS - 1)
        done = self._sign(state.table, node)
        self._judge(state.table)
        return done

    def receive(self, state: Any, sender: bytes, data: bytes) -> list[Effect]:
        """Bytes that begin with ``SHARE``, from a node."""
        self._enter(state)
        table: ValidatorTable = state.table
        if len(data) != _SHARE.size:
            return [Report(sender, f"a share of {_SHARE.size} bytes was expected, got {len(data)}")]
        _, epoch, node, round, signature = _SHARE.unpack(data)
        index = table.index(sender)
        if epoch != table.epoch or index is None or node not in self._subjects(state):
            return []  # of another epoch: its signer says it again in this one, if it still holds
        if node == sender or round >= _ROUNDS:
            return [Report(sender, f"a share about {node.hex()[:16]} in round {round} makes no sense")]
        if index in self._shares.get(node, {}):
            return []
        try:
            check_share(
                self._member.verify, table, index, self._member.chain_id, _text(epoch, node, round), signature
            )
        except SignatureError as error:
            return [Report(sender, f"a share that its sender did not sign: {error}")]
        self._shares.setdefault(node, {})[index] = round, signature
        done: list[Effect] = []
        believed = table.blocking(table.weight(self._shares[node]))
        if believed and node not in self._mine and node != self._member.node_id:
            done += self.suspect(state, node)
        else:
            done += self._submit(table, node)
        self._judge(table)
        return done

    def committed(self, state: Any) -> list[Effect]:
        """A block was committed: who is evicted is forgotten, and in a new epoch the rest is signed again."""
        known, done = self._epoch, list[Effect]()
        self._enter(state)
        if known != self._epoch:
            for node in self._mine:
                done += self._sign(state.table, node)
        self._judge(state.table)
        return done

    def again(self, state: Any) -> list[Effect]:
        """Say once more what is not decided: a message may have been lost."""
        done: list[Effect] = []
        for node in self._mine:
            done += self._sign(state.table, node)
        return done

    def _enter(self, state: Any) -> None:
        if state.table.epoch != self._epoch:
            self._epoch = state.table.epoch
            self._shares.clear()
            here = self._subjects(state)
            self._mine = {node: round for node, round in self._mine.items() if node in here}

    def _sign(self, table: ValidatorTable, node: bytes) -> list[Effect]:
        """This node's share, for all others; and what it completes. Who has no vote only waits."""
        signer, index, round = self._member.signer, table.index(self._member.node_id), self._mine[node]
        if signer is None or index is None:
            return []
        signature = attest(signer, self._member.chain_id, _text(table.epoch, node, round))
        self._shares.setdefault(node, {})[index] = round, signature
        others = tuple(v.node_id for v in table.validators if v.node_id not in (self._member.node_id, node))
        return [
            Broadcast(others, _SHARE.pack(SHARE, table.epoch, node, round, signature)),
            *self._submit(table, node),
        ]

    def _submit(self, table: ValidatorTable, node: bytes) -> Sequence[Effect]:
        shares = self._shares[node]
        if not table.quorum(table.weight(shares)):
            return []
        rounds = tuple(shares[index][0] for index in sorted(shares))
        signed = collect(table, {index: signature for index, (_, signature) in shares.items()})
        return [Submit(self._make(Dead(table.epoch, node, rounds, signed)))]

    def _judge(self, table: ValidatorTable) -> None:
        """Wait at the own promise, or earlier where more than a third of the stake do.

        Where those who live are no quorum, nothing will be decided, and they stop together: at the first
        round that any of them has promised.
        """
        living = [index for index, v in enumerate(table.validators) if v.node_id not in self._mine]
        together = not table.quorum(table.weight(living))
        least = None
        for node, round in self._mine.items():
            weight = 0
            shares = self._shares.get(node, {})
            for index in sorted(shares, key=lambda index: shares[index][0]):
                weight += table[index].stake
                if table.blocking(weight) or (together and index in living):
                    round = min(round, shares[index][0])
                    break
            least = round if least is None else min(least, round)
        self.hold = least


def _text(epoch: int, node: bytes, round: int) -> bytes:
    return statement(Dead(epoch, node, (round,), _NOBODY))
