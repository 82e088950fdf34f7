"""One height's fixed surroundings: chain, parent, table, leaders; which blocks may follow, and making one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pydec.consensus.application import LedgerState
from pydec.consensus.block import (
    MAX_BLOCK_BYTES,
    NO_HASH,
    Block,
    Header,
    room_for_transactions,
    transactions_root,
)
from pydec.consensus.certificate import CertificateError, QuorumCertificate, Verifier
from pydec.consensus.effects import Refused
from pydec.consensus.leader import later_leader
from pydec.consensus.signed import Kind
from pydec.consensus.validators import ValidatorTable
from pydec.errors import TransactionError

Select = Callable[[Header, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Held:
    """A valid block of this height and the state that it leads to."""

    hash: bytes
    block: Block
    encoded: bytes
    state: LedgerState


@dataclass(frozen=True)
class Place:
    """Where a height stands in the chain.

    Args:
        chain_id: 32 bytes.
        state: after the block before.
        parent_hash: of that block; the chain id at height 1.
        last_commit: its certificate, None at height 1.
        verifier: of signatures.
    """

    chain_id: bytes
    state: LedgerState
    parent_hash: bytes
    last_commit: QuorumCertificate | None
    verifier: Verifier

    @cached_property
    def height(self) -> int:
        """The height to decide."""
        return self.state.height + 1

    @cached_property
    def table(self) -> ValidatorTable:
        """Who decides it."""
        return self.state.table

    def leader(self, round: int) -> int:
        """Index of the leader of a round."""
        if round == 0:
            return self.state.leader
        return later_leader(self.table, self.height, round, self.state.leader)

    def _header(self, round: int) -> Header:
        where = (self.chain_id, self.table.epoch, self.height, self.parent_hash, self.last_commit)
        return Header(*where, NO_HASH, NO_HASH, NO_HASH, round, self.leader(round))

    def select(self, round: int, select: Select) -> list[bytes]:
        """What a block made in that round would hold."""
        header = self._header(round)
        return list(select(header, room_for_transactions(header)))

    def make(self, round: int, transactions: Sequence[bytes]) -> Held:
        """A new block. Should the state refuse what it selected itself, an empty one."""
        header = self._header(round)
        try:
            state = self.state.execute(header, transactions)
        except TransactionError:
            transactions = ()
            state = self.state.execute(header, transactions)
        header = dataclasses.replace(
            header,
            tx_root=transactions_root(transactions),
            state_root=state.root(),
            next_validators_hash=state.table.digest(),
        )
        block = Block(header, tuple(transactions))
        return Held(header.hash(), block, block.encode(), state)

    def parse(self, encoded: bytes) -> tuple[bytes, Block]:
        """Hash and block of some bytes; the rest is for ``validate``.

        Raises:
            Refused: they are no block, or hold other transactions than the hash stands for. Whoever sends
                that lies alone; it says nothing about those that signed the hash.
        """
        try:
            block = Block.decode(encoded)
            block.check_body()
        except ValueError as error:  # FrameError is one
            raise Refused(str(error)) from None
        return block.header.hash(), block

    def validate(self, block_hash: bytes, block: Block, encoded: bytes) -> Held:
        """Check everything about a block but who proposes it and why (rule 3).

        Raises:
            Refused: it cannot follow here.
        """
        header = block.header
        if len(encoded) > MAX_BLOCK_BYTES:
            raise Refused(f"a block of {len(encoded)} bytes, at most {MAX_BLOCK_BYTES} are allowed")
        here = (self.chain_id, self.table.epoch, self.height)
        if (header.chain_id, header.epoch, header.height) != here:
            raise Refused(f"a block of another chain, epoch {header.epoch} or height {header.height}")
        if header.parent_hash != self.parent_hash:
            raise Refused(
                f"a block on {header.parent_hash.hex()[:8]}, the head is {self.parent_hash.hex()[:8]}"
            )
        self._check_last_commit(header.last_commit)
        try:
            state = self.state.execute(header, block.transactions)
        except TransactionError as error:
            raise Refused(str(error)) from None
        if state.root() != header.state_root:
            raise Refused("a block whose state root is not what its transactions give")
        if state.table.digest() != header.next_validators_hash:
            raise Refused("a block whose next validators are not what its transactions give")
        return Held(block_hash, block, encoded, state)

    def _check_last_commit(self, commit: QuorumCertificate | None) -> None:
        if self.last_commit is None:
            if commit is not None:
                raise Refused("a first block with a certificate of its parent")
            return
        if commit == self.last_commit:
            return  # verified when it decided the parent here
        if commit is None or commit.block_hash != self.parent_hash:
            raise Refused("a block without its parent's certificate")
        try:
            table = self.state.decided_by
            commit.verify(self.chain_id, table, self.state.height, Kind.COMMIT, self.verifier)
        except CertificateError as error:
            raise Refused(f"a block with a bad certificate of its parent: {error}") from None
