"""The immutable parts of the state, and the one encoding of each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from pydec.codec import fields
from pydec.codec.fields import AMOUNT, DIGEST, ROUND, U8, U32, U64
from pydec.consensus.roles import ALL_ROLES, Role
from pydec.consensus.transactions import MOST_GRANT_BYTES, NO_DIGEST
from pydec.consensus.validators import MAX_TABLE_BYTES, ValidatorTable

KEPT_CHECKPOINTS = 8
KEPT_AUDITS = 64
_VALIDATOR = int(Role.VALIDATOR)  # a set of roles here is a plain integer, which a flag makes slow
MOST_READERS = 1 << 12  # of one data set: wrapped keys are kept, by generation


@dataclass(frozen=True)
class Account:
    """What the chain knows of one identity; it is never forgotten, or its transactions could be replayed.

    Args:
        node_id: identity key.
        key: the key that votes.
        address: where it can be reached.
        roles: as a member; 0 if it is none.
        granted: roles that an admin gave.
        balance: free stake.
        stake: bonded; weighs its votes if it is a validator.
        entry: part of ``stake`` that came with the entry and is burned when it leaves.
        locked: unbonded, still to be lost by evidence as long as the table of ``last_epoch`` is kept.
        last_epoch: the last one in which what is locked had a vote.
        slashed: 1 if it lost its stake by evidence or audit; it may never join again.
        sequence: number of its executed transactions.
        joined: height of its last JOIN.
        round: training round that it last reported.
        seen: height of the last transaction that it sent or attested.
        barred: roles that an admin took from it: it cannot choose them itself until one grants them again.
    """

    node_id: bytes
    key: bytes
    address: str = ""
    roles: int = 0
    granted: int = 0
    balance: int = 0
    stake: int = 0
    entry: int = 0
    locked: int = 0
    last_epoch: int = 0
    slashed: int = 0
    sequence: int = 0
    joined: int = 0
    round: int = 0
    seen: int = 0
    barred: int = 0

    @property
    def is_validator(self) -> bool:
        """Whether it is in the table of validators."""
        return self.stake > 0 and bool(self.roles & _VALIDATOR)

    @cached_property
    def encoded(self) -> bytes:
        """Canonical bytes."""
        return ACCOUNT.encode(self)

    def changed(self, **changes: int) -> Account:
        """With other values in some fields, faster than ``replace``: every transaction changes its sender."""
        values = self.__dict__ | changes
        values.pop("encoded", None)
        return Account(**values)


@dataclass(frozen=True)
class Access:
    """A data set's key of one generation, wrapped for one reader."""

    grantee: bytes
    generation: int
    wrapped: bytes


@dataclass(frozen=True)
class DatasetRecord:
    """A registered data set; see ``transactions.Dataset``. ``generation`` is that of keys for new chunks."""

    root: bytes
    owner: bytes
    name: str
    replicas: int
    parity: int
    encrypted: int
    parent: bytes
    generation: int
    readers: tuple[Access, ...]


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint that a quorum holds, and the height that says so."""

    round: int
    root: bytes
    epoch: int
    height: int


@dataclass(frozen=True)
class AuditRecord:
    """A quorum's finding about one step of one peer."""

    subject: bytes
    round: int
    guilty: int
    digest: bytes
    height: int


@dataclass(frozen=True)
class Run:
    """The training run.

    Args:
        options: pairs (name, value) sorted by name, from genesis and CONFIG.
        run_id, config: of the run that began last; zero: none did.
        began, ended: heights; 0: not yet.
        end_round, end_root: of the model that a quorum agreed on at the end.
        checkpoints, audits: the last ones, the newest last.
    """

    options: tuple[tuple[str, str], ...] = ()
    run_id: bytes = NO_DIGEST
    config: bytes = NO_DIGEST
    began: int = 0
    ended: int = 0
    end_round: int = 0
    end_root: bytes = NO_DIGEST
    checkpoints: tuple[CheckpointRecord, ...] = ()
    audits: tuple[AuditRecord, ...] = ()

    @property
    def running(self) -> bool:
        """Whether a run has begun and not ended."""
        return self.run_id != NO_DIGEST and not self.ended


@dataclass(frozen=True)
class Work:
    """The entry puzzle's price: target now, and joins counted since the period ``period`` began."""

    target: int
    period: int = 0
    joins: int = 0


@dataclass(frozen=True)
class Supply:
    """Stake in all accounts = ``genesis`` + ``minted`` - ``burned``."""

    genesis: int
    minted: int = 0
    burned: int = 0

    @property
    def total(self) -> int:
        """Stake that there is."""
        return self.genesis + self.minted - self.burned


@dataclass(frozen=True)
class PastTable:
    """The table of a past epoch; ``until`` is the last height that it decided."""

    table: ValidatorTable
    until: int


@dataclass(frozen=True)
class Presence:
    """Bit k is 1 if a validator signed the commit of k blocks ago; ``seen`` counts blocks up to 64."""

    node_id: bytes
    signed: int
    seen: int


_FLAG = fields.integer(1, 0, 1)
_ROLES = fields.integer(2, 0, int(ALL_ROLES))
ACCOUNT = fields.record(
    Account,
    node_id=DIGEST,
    key=DIGEST,
    address=fields.ADDRESS,
    roles=_ROLES,
    granted=_ROLES,
    balance=AMOUNT,
    stake=AMOUNT,
    entry=AMOUNT,
    locked=AMOUNT,
    last_epoch=U64,
    slashed=_FLAG,
    sequence=U64,
    joined=U64,
    round=ROUND,
    seen=U64,
    barred=_ROLES,
)
_ACCESS = fields.record(Access, grantee=DIGEST, generation=U32, wrapped=fields.blob(MOST_GRANT_BYTES))
DATASET = fields.record(
    DatasetRecord,
    root=DIGEST,
    owner=DIGEST,
    name=fields.text(64),
    replicas=U8,
    parity=U8,
    encrypted=_FLAG,
    parent=DIGEST,
    generation=U32,
    readers=fields.many(_ACCESS, MOST_READERS, key=lambda a: (a.grantee, a.generation)),
)
_CHECKPOINT = fields.record(CheckpointRecord, round=U64, root=DIGEST, epoch=U64, height=U64)
_AUDIT = fields.record(AuditRecord, subject=DIGEST, round=U64, guilty=_FLAG, digest=DIGEST, height=U64)
RUN = fields.record(
    Run,
    options=fields.PAIRS,
    run_id=DIGEST,
    config=DIGEST,
    began=U64,
    ended=U64,
    end_round=U64,
    end_root=DIGEST,
    checkpoints=fields.many(_CHECKPOINT, KEPT_CHECKPOINTS),
    audits=fields.many(_AUDIT, KEPT_AUDITS),
)
WORK = fields.record(Work, target=fields.integer(32, 1), period=U64, joins=U32)
SUPPLY = fields.record(Supply, genesis=AMOUNT, minted=U64, burned=U64)
_TABLE = fields.blob(MAX_TABLE_BYTES)
TABLE: fields.Codec[ValidatorTable] = fields.Codec(
    lambda out, table: _TABLE.write(out, table.encode()),
    lambda reader: ValidatorTable.decode(_TABLE.read(reader)),
)
PAST_TABLE = fields.record(PastTable, table=TABLE, until=U64)
PRESENCE = fields.record(Presence, node_id=DIGEST, signed=U64, seen=fields.integer(1, 0, 64))
