"""Transactions that wait for a block: bounded, each once, a share for each sender."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

from pydec.consensus.application import LedgerState
from pydec.errors import TransactionError

MAX_TRANSACTIONS = 4096
MAX_BYTES = 8 << 20
MAX_OF_ONE = 512  # transactions waiting that came from one node, so that nobody fills the pool alone


class Pool:
    """What has passed ``LedgerState.check`` and is not in a block yet, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, tuple[bytes, bytes]] = {}
        self._counts: Counter[bytes] = Counter()
        self._n_bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, transaction: bytes, origin: bytes, state: LedgerState) -> bool:
        """Take a transaction in.

        Args:
            transaction: any bytes.
            origin: the node that it came from.
            state: the newest.

        Returns:
            False if it is here already.

        Raises:
            TransactionError: the state refuses it, or there is no room.
        """
        name = hashlib.sha256(transaction).digest()
        if name in self._waiting:
            return False
        if len(transaction) > state.max_transaction_bytes:
            raise TransactionError(
                f"a transaction of {len(transaction)} bytes, at most {state.max_transaction_bytes} are taken"
            )
        if self._counts[origin] >= MAX_OF_ONE:
            raise TransactionError(f"{MAX_OF_ONE} transactions of one node wait already; try again later")
        if len(self._waiting) >= MAX_TRANSACTIONS or self._n_bytes + len(transaction) > MAX_BYTES:
            raise TransactionError(f"{len(self._waiting)} transactions wait already; try again later")
        state.check(transaction)
        self._waiting[name] = (transaction, origin)
        self._counts[origin] += 1
        self._n_bytes += len(transaction)
        return True

    def __contains__(self, transaction: bytes) -> bool:
        return hashlib.sha256(transaction).digest() in self._waiting

    def transactions(self) -> list[bytes]:
        """All, oldest first."""
        return [transaction for transaction, _ in self._waiting.values()]

    def of(self, origin: bytes) -> list[bytes]:
        """Those of one node, oldest first."""
        if not self._counts[origin]:
            return []
        return [transaction for transaction, came_from in self._waiting.values() if came_from == origin]

    def settle(self, included: Iterable[bytes], state: LedgerState) -> None:
        """After a block: drop what it holds, and what its state refuses from now on."""
        for transaction in included:
            self._drop(hashlib.sha256(transaction).digest())
        for name, (transaction, _) in list(self._waiting.items()):
            try:
                state.check(transaction)
            except TransactionError:
                self._drop(name)

    def _drop(self, name: bytes) -> None:
        dropped = self._waiting.pop(name, None)
        if dropped is None:
            return
        transaction, origin = dropped
        self._n_bytes -= len(transaction)
        self._counts[origin] -= 1
        if not self._counts[origin]:
            del self._counts[origin]
