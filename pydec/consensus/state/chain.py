"""The whole state after one block, its root, and how the next block changes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pydec.consensus.block import NO_HASH, Header
from pydec.consensus.evidence import Evidence
from pydec.consensus.leader import advance
from pydec.consensus.rules import Rules
from pydec.consensus.state import execute, streams
from pydec.consensus.state.draft import Draft
from pydec.consensus.state.parts import (
    Account,
    DatasetRecord,
    PastTable,
    Presence,
    Run,
    Supply,
    Work,
)
from pydec.consensus.transactions import NO_DIGEST, EvidenceOf, kind_name, prove
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.errors import TransactionError

_SEEN_LIMIT = 64
_MASK = (1 << _SEEN_LIMIT) - 1


@dataclass(frozen=True)
class ChainState:
    """Everything that the next block may depend on; immutable.

    Args:
        chain_id: hash of the genesis.
        rules: of the chain.
        height: of the block that this is the state after; 0 for genesis.
        table: validators of height + 1.
        leader, priorities: of round 0 of height + 1, and of the rotation after it; see ``LedgerState``.
        accounts, datasets: by node id and by root.
        run, work, supply: see ``parts``.
        recent: hashes of the last blocks before this one, the newest last.
        tables: of past epochs, as far as evidence reaches, the newest last.
        presence: who signed the last commits, by validator in the table's order.
        effect_round: training round at which the table's epoch takes effect.
        changed: height of the block that made the table; 0: the genesis.
        origin: hash of that block, the chain id for the genesis; zero as long as it is the last block, whose
            hash its own state cannot hold.
    """

    chain_id: bytes
    rules: Rules
    height: int
    table: ValidatorTable
    leader: int
    priorities: tuple[int, ...]
    accounts: Mapping[bytes, Account]
    datasets: Mapping[bytes, DatasetRecord]
    run: Run
    work: Work
    supply: Supply
    recent: tuple[bytes, ...] = ()
    tables: tuple[PastTable, ...] = ()
    presence: tuple[Presence, ...] = ()
    effect_round: int = 0
    changed: int = 0
    origin: bytes = NO_DIGEST
    parent: ChainState | None = field(default=None, repr=False, compare=False)
    """The state that this one was made from, until its digests are taken over; no part of the value."""

    @property
    def decided_by(self) -> ValidatorTable:
        """Validators that decided ``height``."""
        return self.tables[-1].table if self.changed == self.height and self.tables else self.table

    @property
    def max_transaction_bytes(self) -> int:
        """Longer transactions are refused unseen."""
        return self.rules.transaction_bytes

    @property
    def oldest_epoch(self) -> int:
        """First epoch whose table is kept."""
        return self.tables[0].table.epoch if self.tables else self.table.epoch

    def table_of(self, epoch: int) -> ValidatorTable:
        """The table of an epoch; the present one if that is not kept, or has not begun."""
        past = (past.table for past in self.tables)
        return next((table for table in past if table.epoch == epoch), self.table)

    def missed(self, node_id: bytes) -> int:
        """How many of the last ``downtime_blocks`` commits a validator did not sign; 0 before so many."""
        for presence in self.presence:
            if presence.node_id == node_id and presence.seen >= self.rules.downtime_blocks:
                window = (1 << self.rules.downtime_blocks) - 1
                return self.rules.downtime_blocks - (presence.signed & window).bit_count()
        return 0

    def execute(self, header: Header, transactions: Sequence[bytes]) -> ChainState:
        """The state after the next block.

        Raises:
            TransactionError: the header does not follow, or a transaction is refused; the message names it.
        """
        draft = execute.draft_of(self, header)
        for number, data in enumerate(transactions):
            try:
                execute.apply(draft, data)
            except TransactionError as error:
                raise TransactionError(f"transaction {number} ({kind_name(data)}): {error}") from None
        return _finish(draft, header)

    def select(self, header: Header, pool: Sequence[bytes], max_bytes: int) -> list[bytes]:
        """What a proposer puts in: see ``LedgerState``."""
        return execute.select(execute.draft_of(self, header), pool, max_bytes)

    def check(self, transaction: bytes) -> None:
        """Whether a transaction may wait in a pool: see ``LedgerState``.

        Raises:
            TransactionError: it may not.
        """
        # The hash of the last block is not known yet: a puzzle bound to it is refused until the next block.
        execute.check(Draft(self, self.height + 1, NO_HASH), transaction)

    def evidence_transaction(self, accused: bytes, evidence: Evidence) -> bytes:
        """The transaction that carries an evidence against a node id."""
        return prove(EvidenceOf(accused, evidence.encode()))

    def is_absent(self, node_id: bytes) -> bool:
        """Whether a validator may be evicted: it missed more than half of the last commits, and was silent.

        A certificate holds the first quorum's votes, so who is merely the slowest is never in one; it shows
        that it lives by any transaction, such as a BEACON, or by its signature under a checkpoint.
        """
        blocks, account = self.rules.downtime_blocks, self.accounts.get(node_id)
        silent = account is None or account.seen + blocks <= self.height
        return silent and 2 * self.missed(node_id) > blocks

    def root(self) -> bytes:
        """32 bytes over the digests of all parts; see ``streams``."""
        return self._root

    @cached_property
    def _root(self) -> bytes:
        return streams.root(
            (
                streams.digest(streams.head(self)), self._table_digest, self._rules_digest, self._run_digest,
                self._accounts_digest, self._datasets_digest, self._tables_digest,
            )
        )  # fmt: skip

    # A part that no transaction touched is the same object as in the parent, and so is its digest.

    @cached_property
    def _table_digest(self) -> bytes:
        return self._kept("_table_digest", "table") or streams.digest(streams.table(self))

    @cached_property
    def _rules_digest(self) -> bytes:
        return self._kept("_rules_digest", "rules") or streams.digest(streams.rules(self))

    @cached_property
    def _run_digest(self) -> bytes:
        kept = self._kept("_run_digest", "run", "work", "supply")
        return kept or streams.digest(streams.run(self))

    @cached_property
    def _accounts_digest(self) -> bytes:
        return self._kept("_accounts_digest", "accounts") or streams.digest(streams.accounts(self))

    @cached_property
    def _datasets_digest(self) -> bytes:
        return self._kept("_datasets_digest", "datasets") or streams.digest(streams.datasets(self))

    @cached_property
    def _tables_digest(self) -> bytes:
        return self._kept("_tables_digest", "tables") or streams.digest(streams.tables(self))

    def _kept(self, name: str, *of: str) -> bytes | None:
        parent = self.parent
        if parent is None or any(getattr(parent, part) is not getattr(self, part) for part in of):
            return None
        digest: bytes = getattr(parent, name)
        return digest


def validator_table(epoch: int, accounts: Iterable[Account]) -> ValidatorTable:
    """The table of all accounts that are validators."""
    return ValidatorTable.of(
        epoch, (Validator(a.node_id, a.key, a.stake, a.address) for a in accounts if a.is_validator)
    )


def reached_round(accounts: Mapping[bytes, Account], table: ValidatorTable) -> int:
    """The highest round that more than a third of the stake reports to have reached.

    So at least one honest validator has: liars can hold the number back or push it no further.
    """
    weight = 0
    for account in sorted(
        (accounts[v.node_id] for v in table.validators if v.node_id in accounts), key=lambda a: -a.round
    ):
        weight += account.stake
        if table.blocking(weight):
            return account.round
    return 0


def rebased(old: ValidatorTable, priorities: Sequence[int], new: ValidatorTable) -> tuple[int, ...]:
    """Priorities for a changed table: who stays keeps its own, who comes starts behind all others.

    The sum is brought back to about 0, as it was. Source: Tendermint, spec/consensus/proposer-selection.md: a
    newcomer starts at -1.125 W, so that leaving and coming back gains nothing.
    """
    behind = -(new.total + new.total // 8)
    raw = []
    for validator in new.validators:
        index = old.index(validator.node_id)
        raw.append(behind if index is None else priorities[index])
    mean = sum(raw) // len(raw)
    limit = 2 * new.total
    return tuple(min(max(priority - mean, -limit), limit) for priority in raw)


def presence_after(
    state: ChainState, table: ValidatorTable, signers: frozenset[bytes] | None
) -> tuple[Presence, ...]:
    """Presence by validator of ``table``, after a commit that ``signers`` signed; None: there was none."""
    before = {presence.node_id: presence for presence in state.presence}
    found = []
    for validator in table.validators:
        old = before.get(validator.node_id) or Presence(validator.node_id, 0, 0)
        if signers is None or (state.table.index(validator.node_id) is None and not old.seen):
            found.append(old)
            continue
        signed = (old.signed << 1 | (validator.node_id in signers)) & _MASK
        found.append(Presence(old.node_id, signed, min(old.seen + 1, _SEEN_LIMIT)))
    return tuple(found)


def _finish(draft: Draft, header: Header) -> ChainState:
    """The state after the block, all of its transactions executed."""
    state, signers = draft.state, None
    if header.last_commit is not None:
        signers = frozenset(state.decided_by[index].node_id for index in header.last_commit.signers())
    begins = draft.run.run_id != state.run.run_id  # its rounds are counted from 0
    table, tables, accounts = state.table, state.tables, draft.accounts
    effect = 0 if begins else state.effect_round
    priorities, changed = state.priorities, state.changed
    origin = header.parent_hash if state.changed == state.height else state.origin
    if draft.view_changed or draft.death_round is not None:
        table = validator_table(state.table.epoch + 1, accounts.values())
        tables = (*tables, PastTable(state.table, draft.height))
        priorities = rebased(state.table, priorities, table)
        if draft.view_changed:
            effect = max(effect, reached_round(accounts, state.table) + draft.number("margin_rounds"))
        effect = max(effect, draft.death_round or 0)
        changed, origin = draft.height, NO_DIGEST
    forgotten = 0
    while forgotten < len(tables) and tables[forgotten].until + state.rules.evidence_blocks <= draft.height:
        forgotten += 1
    if forgotten:
        tables = tables[forgotten:]
        accounts = _unlocked(accounts, tables[0].table.epoch if tables else table.epoch)
    leader, priorities = advance(table, priorities, _eligible(table, signers))
    after = ChainState(
        state.chain_id, state.rules, draft.height, table, leader, priorities,
        state.accounts if accounts == state.accounts else accounts,
        state.datasets if draft.datasets == state.datasets else draft.datasets,
        draft.run, draft.work, draft.supply, draft.recent, tables,
        presence_after(state, table, signers), effect, changed, origin, parent=state,
    )  # fmt: skip
    after.root()
    object.__setattr__(after, "parent", None)  # its digests are taken over; or no state would ever be freed
    return after


def _eligible(table: ValidatorTable, signers: frozenset[bytes] | None) -> range | list[int]:
    """Who may lead: those of the table that signed the commit in the block; all if there was none."""
    if signers is None:
        return range(len(table))
    return [index for index, validator in enumerate(table.validators) if validator.node_id in signers]


def _unlocked(accounts: dict[bytes, Account], oldest_epoch: int) -> dict[bytes, Account]:
    """Accounts with the stake freed that evidence cannot reach any more."""
    return {
        node_id: replace(a, balance=a.balance + a.locked, locked=0, last_epoch=0)
        if a.locked and a.last_epoch < oldest_epoch
        else a
        for node_id, a in accounts.items()
    }
