"""A block in the making: the state before it, and what its transactions have changed so far.

Handlers check everything before they change anything, so a refused transaction leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pydec.consensus import options
from pydec.consensus.access import Action, check_role
from pydec.consensus.puzzle import retarget
from pydec.consensus.state.parts import Account
from pydec.consensus.validators import ValidatorTable
from pydec.errors import AccessDenied, DeniedTransaction, TransactionError

if TYPE_CHECKING:
    from pydec.consensus.state.chain import ChainState


class NotYetError(TransactionError):
    """Refused in this block, but perhaps not in the next: it may wait in a pool."""


class Draft:
    """What execution changes; see ``ChainState`` for the fields of the same names.

    Args:
        state: after the parent block.
        height: of the block.
        parent_hash: of the parent block.
    """

    def __init__(self, state: ChainState, height: int, parent_hash: bytes) -> None:
        self.state, self.height = state, height
        self.accounts = dict(state.accounts)
        self.datasets = dict(state.datasets)
        self.run, self.work, self.supply = state.run, state.work, state.supply
        self.recent = (*state.recent, parent_hash)[-state.rules.recent_blocks :]
        self.view_changed = False
        self.death_round: int | None = None
        """Where the view without the dead may begin, if the block has any: nobody has to reach it first."""
        self.evidence_bytes = 0
        self.after_evidence = False
        self.stake = state.table.total
        self._moved = self._changes = 0
        period = height // state.rules.period_blocks
        if period > self.work.period:
            wanted = self.number("joins_per_period")
            self.work = replace(
                self.work, target=retarget(self.work.target, self.work.joins, wanted), period=period, joins=0
            )

    @property
    def epoch(self) -> int:
        """Epoch of the block itself; what it changes takes effect in the next."""
        return self.state.table.epoch

    def option(self, name: str, default: str) -> str:
        """An option of the run."""
        return dict(self.run.options).get(name, default)

    def number(self, name: str) -> int:
        """A rule that an option may override."""
        return options.number(dict(self.run.options), self.state.rules, name)

    def account(self, node_id: bytes) -> Account:
        """An account that must be there."""
        found = self.accounts.get(node_id)
        if found is None:
            raise TransactionError(f"the chain knows no account {node_id.hex()[:16]}")
        return found

    def put(self, account: Account) -> None:
        """Store an account, and keep count of the stake in the table."""
        old = self.accounts.get(account.node_id)
        if old is not None and old.is_validator:
            self.stake -= old.stake
        if account.is_validator:
            self.stake += account.stake
        self.accounts[account.node_id] = account

    def need(self, node_id: bytes, action: Action) -> Account:
        """The account of who wants to act, if it has a role for it.

        Raises:
            DeniedTransaction: it has none.
        """
        account = self.account(node_id)
        self.denying(lambda: check_role(node_id, account, action))
        return account

    @staticmethod
    def denying(check: Callable[[], None]) -> None:
        """Ask ``check``; what it denies refuses the transaction."""
        try:
            check()
        except AccessDenied as error:
            raise DeniedTransaction(error.identity, error.action, error.resource, error.needed) from None

    def validators(self) -> Iterable[Account]:
        """Every account that votes after this block, as far as it is executed."""
        return (account for account in self.accounts.values() if account.is_validator)

    def check_churn(self, amount: int) -> None:
        """Whether ``amount`` of stake may be added to or removed from the table in this epoch.

        The first change of an epoch always may: with the specification's "less than a tenth of the total"
        alone, no one could ever join or leave a chain of ten equal validators or fewer.
        """
        tenths, total = self.state.rules.churn_tenths, self.state.table.total
        if self._changes and 10 * (self._moved + amount) >= tenths * total:
            raise NotYetError(
                f"stake {self._moved} of {total} has moved in epoch {self.epoch}, {amount} more would reach "
                f"{tenths} tenths; wait for the next epoch"
            )

    def count_churn(self, amount: int) -> None:
        """Note that ``amount`` moved; after ``check_churn``."""
        self._moved += amount
        self._changes += 1

    def check_cap(self, node_id: bytes, stake: int) -> None:
        """Whether a node may raise its stake in the table to ``stake``."""
        others = [account.stake for account in self.validators() if account.node_id != node_id]
        total, percent = sum(others) + stake, self.state.rules.cap_percent
        if total >= 1 << 62:
            raise TransactionError(f"stake {total} in the table would reach 2^62")
        if 100 * stake > percent * total and not (others and stake <= min(others)):
            raise TransactionError(
                f"{node_id.hex()[:16]} would hold stake {stake} of {total}, above {percent} % and above the "
                "smallest other validator"
            )

    def check_not_last(self, account: Account, action: str) -> None:
        """Whether somebody is left to vote without this account."""
        if account.is_validator and self.stake == account.stake:
            raise TransactionError(f"{account.node_id.hex()[:16]} is the last validator; it cannot {action}")

    def table_of(self, epoch: int, oldest: int) -> ValidatorTable:
        """The table of a past epoch not before ``oldest``, or of this one."""
        past = (past.table for past in reversed(self.state.tables))
        for table in (self.state.table, *past):
            if table.epoch == epoch and epoch >= oldest:
                return table
        raise TransactionError(
            f"epoch {epoch} is over or not begun: those from {max(oldest, self.state.oldest_epoch)} to "
            f"{self.epoch} count"
        )
