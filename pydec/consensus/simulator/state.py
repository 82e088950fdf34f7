"""A small ledger for simulations: numbered notes, changes of stake, and evidence that removes its accused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from pydec.consensus import evidence as proofs
from pydec.consensus.block import Header, packed_bytes
from pydec.consensus.certificate import Verify
from pydec.consensus.evidence import Evidence, EvidenceError
from pydec.consensus.leader import advance
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.errors import FrameError, SignatureError, TransactionError

NOTE, STAKE, EVIDENCE = b"n", b"s", b"e"
_WINDOW = 8  # tables kept to judge evidence by


def note(number: int, padding: int = 0) -> bytes:
    """A transaction that can be in the ledger once."""
    return NOTE + number.to_bytes(8, "big") + bytes(padding)


def set_stake(validator: Validator) -> bytes:
    """A transaction that gives a validator this key and stake; stake 0 removes it."""
    return STAKE + validator.node_id + validator.key + validator.stake.to_bytes(8, "big")


@lru_cache(maxsize=1 << 14)
def _sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(frozen=True)
class ToyState:
    """Implements ``application.LedgerState``.

    Args:
        chain_id: of the chain.
        verify: of evidence.
        height, table, decided_by, leader, priorities: as there.
        log: hash over everything executed.
        done: the transactions executed, by hash.
        tables: of the last epochs, by epoch.
        punished: (node id, height) that evidence was accepted for.
    """

    chain_id: bytes
    verify: Verify
    height: int
    table: ValidatorTable
    decided_by: ValidatorTable
    leader: int
    priorities: tuple[int, ...]
    log: bytes = bytes(32)
    done: frozenset[bytes] = frozenset()
    tables: tuple[ValidatorTable, ...] = ()
    punished: frozenset[bytes] = frozenset()
    max_transaction_bytes: int = 1 << 20

    @classmethod
    def genesis(cls, chain_id: bytes, table: ValidatorTable, verify: Verify) -> ToyState:
        """Height 0."""
        leader, priorities = advance(table, (0,) * len(table), range(len(table)))
        return cls(chain_id, verify, 0, table, table, leader, priorities, tables=(table,))

    def root(self) -> bytes:
        """Of the log, the table and whose turn it is."""
        turn = repr((self.leader, self.priorities)).encode()
        return hashlib.sha256(self.log + self.table.digest() + turn).digest()

    def execute(self, header: Header, transactions: Sequence[bytes]) -> ToyState:
        """Each transaction once, in order."""
        state = self
        for transaction in transactions:
            state.check(transaction)
            state = state._apply(transaction)
        return state._next(self, header)

    def select(self, header: Header, pool: Sequence[bytes], max_bytes: int) -> list[bytes]:
        """Evidence first; whatever fits and is still allowed after what was chosen before it."""
        state, chosen, room = self, [], max_bytes
        for transaction in sorted(pool, key=lambda transaction: transaction[:1] != EVIDENCE):
            needed = packed_bytes((transaction,))
            if needed > room:
                continue
            try:
                state.check(transaction)
            except TransactionError:
                continue
            state = state._apply(transaction)
            chosen.append(transaction)
            room -= needed
        return chosen

    def check(self, transaction: bytes) -> None:
        """Raises TransactionError for one that was executed before, or makes no sense."""
        kind = transaction[:1]
        if _sha(transaction) in self.done:
            raise TransactionError("this transaction was executed before")
        if kind == STAKE:
            self._changed(transaction)
        elif kind == EVIDENCE:
            self._judge(transaction)
        elif kind != NOTE:
            raise TransactionError(f"a transaction of unknown kind {kind!r}")

    def evidence_transaction(self, accused: bytes, evidence: Evidence) -> bytes:
        """Accused and proof."""
        return EVIDENCE + accused + evidence.encode()

    def _apply(self, transaction: bytes) -> ToyState:
        table, punished = self.table, self.punished
        if transaction[:1] == STAKE:
            table = self._changed(transaction)
        elif transaction[:1] == EVIDENCE:
            table, offence = self._judge(transaction)
            punished |= {offence}
        digest = _sha(transaction)
        log = hashlib.sha256(self.log + digest).digest()
        return replace(self, table=table, log=log, done=self.done | {digest}, punished=punished)

    def _changed(self, transaction: bytes) -> ValidatorTable:
        if len(transaction) != 73:
            raise TransactionError(f"a change of stake has 73 bytes, got {len(transaction)}")
        node_id, key = transaction[1:33], transaction[33:65]
        return self._with(node_id, key, int.from_bytes(transaction[65:], "big"))

    def _with(self, node_id: bytes, key: bytes, stake: int) -> ValidatorTable:
        others = [validator for validator in self.table.validators if validator.node_id != node_id]
        changed = [Validator(node_id, key, stake)] if stake else []
        try:
            return ValidatorTable.of(self.table.epoch, others + changed)
        except ValueError as error:
            raise TransactionError(str(error)) from None

    def _judge(self, transaction: bytes) -> tuple[ValidatorTable, bytes]:
        try:
            accused, evidence = transaction[1:33], Evidence.decode(transaction[33:])
            table = next((table for table in self.tables if table.epoch == evidence.epoch), None)
            index = None if table is None else table.index(accused)
            if table is None or index is None:
                raise TransactionError("evidence against nobody, or too old")
            proofs.verify(evidence, table[index].key, self.chain_id, self.verify)
        except (FrameError, EvidenceError, SignatureError) as error:
            raise TransactionError(str(error)) from None
        offence = accused + evidence.height.to_bytes(8, "big")
        if offence in self.punished:
            raise TransactionError("evidence for what was punished before")
        if self.table.index(accused) is None:
            raise TransactionError("evidence against a node that is gone")
        return self._with(accused, table[index].key, 0), offence

    def _next(self, before: ToyState, header: Header) -> ToyState:
        table = self.table
        priorities = before.priorities
        if table is not before.table:
            table = ValidatorTable(before.table.epoch + 1, table.validators)
            old = {v.node_id: p for v, p in zip(before.table.validators, priorities, strict=True)}
            priorities = tuple(old.get(validator.node_id, 0) for validator in table.validators)
        signers: Sequence[int] = range(len(table))
        if header.last_commit is not None:
            names = [before.decided_by[index].node_id for index in header.last_commit.signers()]
            signers = [index for name in names if (index := table.index(name)) is not None]
        leader, priorities = advance(table, priorities, signers)
        tables = before.tables if table is before.table else (*before.tables[1 - _WINDOW :], table)
        return replace(
            self,
            height=header.height,
            table=table,
            decided_by=before.table,
            leader=leader,
            priorities=priorities,
            tables=tables,
        )
