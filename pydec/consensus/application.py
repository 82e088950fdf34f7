"""What the replica asks of the state it replicates. Transactions are opaque bytes to the replica."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydec.consensus.block import Header
from pydec.consensus.evidence import Evidence
from pydec.consensus.validators import ValidatorTable


class LedgerState(Protocol):
    """The state after a committed block. Immutable and deterministic: integers only, no clock, no I/O.

    Attributes:
        height: of the block it is the state after, 0 for the genesis.
        table: the validators that decide ``height + 1``.
        decided_by: the validators that decided ``height``, against whom the certificate of that block, which
            the next header holds, is verified; ``table`` at height 0.
        leader: index in ``table`` of the leader of round 0 of ``height + 1``: the first result of
            ``leader.advance(table, priorities before, eligible)``, where ``eligible`` are those of ``table``
            that signed the ``last_commit`` in the header of block ``height``; all at heights 0 and 1.
        priorities: the second result, which the next step of the rotation starts from.
        max_transaction_bytes: longer transactions are dropped before ``check`` sees them.
    """

    @property
    def height(self) -> int:
        """See the class."""
        ...

    @property
    def table(self) -> ValidatorTable:
        """See the class."""
        ...

    @property
    def decided_by(self) -> ValidatorTable:
        """See the class."""
        ...

    @property
    def leader(self) -> int:
        """See the class."""
        ...

    @property
    def priorities(self) -> tuple[int, ...]:
        """See the class."""
        ...

    @property
    def max_transaction_bytes(self) -> int:
        """See the class."""
        ...

    def root(self) -> bytes:
        """32 bytes that commit to all of the state: ``state_root`` of the block's header."""
        ...

    def execute(self, header: Header, transactions: Sequence[bytes]) -> LedgerState:
        """The state after the next block.

        Must not read ``state_root``, ``next_validators_hash`` and ``tx_root`` of the header, which a proposer
        fills in afterwards. ``last_commit`` has been verified.

        Raises:
            TransactionError: the block is invalid.
        """
        ...

    def select(self, header: Header, pool: Sequence[bytes], max_bytes: int) -> list[bytes]:
        """What a proposer puts into the next block: evidence first, nothing that ``execute`` would refuse.

        Args:
            header: of the block, its roots all zero.
            pool: what has passed ``check``, oldest first.
            max_bytes: limit of ``block.packed_bytes`` of the result.
        """
        ...

    def check(self, transaction: bytes) -> None:
        """May it wait in the pool? Called again after every block.

        Raises:
            TransactionError: no.
        """
        ...

    def evidence_transaction(self, accused: bytes, evidence: Evidence) -> bytes:
        """The transaction that carries an evidence against a node id, the same bytes at every node."""
        ...
