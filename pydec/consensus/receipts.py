"""Who waits for which transaction, and what becomes of it."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from pydec.consensus.application import LedgerState
from pydec.crypto.hashing import sha256
from pydec.errors import TransactionError


@dataclass(frozen=True)
class Receipt:
    """Where a transaction was committed.

    Args:
        height: of the block.
        block_hash: 32 bytes.
    """

    height: int
    block_hash: bytes


class Receipts:
    """Futures of transactions that are not committed yet."""

    def __init__(self) -> None:
        self._pending: dict[bytes, tuple[bytes, list[Future[Receipt]]]] = {}

    def add(self, transaction: bytes, future: Future[Receipt]) -> bool:
        """One more waits for a transaction; whether it is the first one."""
        waiting = self._pending.setdefault(sha256(transaction), (transaction, []))[1]
        waiting.append(future)
        return len(waiting) == 1

    def settle(self, transaction: bytes, result: Receipt | Exception) -> None:
        """What has become of a transaction."""
        if not self._pending:
            return
        for future in self._pending.pop(sha256(transaction), (b"", []))[1]:
            if future.set_running_or_notify_cancel():
                if isinstance(result, Receipt):
                    future.set_result(result)
                else:
                    future.set_exception(result)

    def recheck(self, state: LedgerState) -> None:
        """Refuse what the newest state refuses; after a snapshot, some of it may have been committed."""
        for transaction, _ in list(self._pending.values()):
            try:
                state.check(transaction)
            except TransactionError as error:
                self.settle(transaction, error)

    def refuse(self, error: Exception) -> None:
        """Nothing of it will be committed here."""
        for transaction, _ in list(self._pending.values()):
            self.settle(transaction, error)
