"""Telling the others of this node's transactions until they are in a block."""

from __future__ import annotations

from collections.abc import Callable

from pydec.consensus.application import LedgerState
from pydec.consensus.effects import CancelTimer, Denied, Outbox, SetTimer, Timer
from pydec.consensus.messages import Transaction
from pydec.consensus.pacemaker import Pacemaker
from pydec.consensus.pool import Pool
from pydec.errors import DeniedTransaction, TransactionError

TOGETHER = 16  # transactions that are sent again at a time
MOST_REPEATS = 8


class Spread:
    """Sends a transaction at once, and those that wait for long again, more and more rarely.

    Args:
        pool: where they wait.
        node_id: this node.
        pace: durations.
        broadcast: to all validators.
        outbox: where timers go.
    """

    def __init__(
        self,
        pool: Pool,
        node_id: bytes,
        pace: Pacemaker,
        broadcast: Callable[[Transaction], None],
        outbox: Outbox,
    ) -> None:
        self._pool, self._node_id, self._pace = pool, node_id, pace
        self._broadcast, self._outbox = broadcast, outbox
        self._repeats: int | None = None  # None: the timer does not run

    def tell(self, transaction: bytes) -> None:
        """A new one."""
        self._broadcast(Transaction(transaction))
        if self._repeats is None:
            self._repeats = 0
            self._set_timer(1)

    def heard(self, sender: bytes, transaction: bytes, state: LedgerState) -> None:
        """One of another node: it waits with the others, unless the state refuses it."""
        try:
            self._pool.add(transaction, sender, state)
        except DeniedTransaction as error:
            self._outbox.rest.append(Denied(error))
        except TransactionError:
            pass  # honest too: its sender may be a block behind or ahead

    def again(self) -> None:
        """The timer has run out."""
        mine = self._pool.of(self._node_id)[:TOGETHER]
        if not mine or self._repeats is None or self._repeats >= MOST_REPEATS:
            self._repeats = None
            return
        for transaction in mine:
            self._broadcast(Transaction(transaction))
        self._repeats += 1
        self._set_timer(1 + self._repeats)

    def settle(self) -> None:
        """After a block: nothing to do if no transaction of this node is left."""
        if self._repeats is not None and not self._pool.of(self._node_id):
            self._repeats = None
            self._outbox.rest.append(CancelTimer(Timer.RESEND))

    def _set_timer(self, round: int) -> None:
        self._outbox.rest.append(SetTimer(Timer.RESEND, self._pace.delay_s(round)))
