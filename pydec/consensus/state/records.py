"""What members put on record: data sets and their readers, roles, options, the run and its checkpoints."""

from __future__ import annotations

from dataclasses import replace

from pydec.consensus import options
from pydec.consensus.access import Action, check_data
from pydec.consensus.certificate import from_bitmap
from pydec.consensus.roles import SELF_CHOSEN, Role
from pydec.consensus.state.draft import Draft
from pydec.consensus.state.membership import slash, unbonded
from pydec.consensus.state.parts import (
    KEPT_AUDITS,
    KEPT_CHECKPOINTS,
    MOST_READERS,
    Access,
    Account,
    AuditRecord,
    CheckpointRecord,
    DatasetRecord,
    Run,
)
from pydec.consensus.transactions import (
    NO_DIGEST,
    Attested,
    Audit,
    Beacon,
    Begin,
    Checkpoint,
    Config,
    Dataset,
    End,
    Grant,
    Revoke,
    Withheld,
    statement,
)
from pydec.errors import TransactionError

_TRAINS = int(Role.TRAINER | Role.VALIDATOR)  # a plain integer: flags are slow, and beacons come every step


def dataset(draft: Draft, sender: bytes, body: Dataset) -> None:
    """Register a manifest."""
    draft.need(sender, Action.REGISTER_DATA)
    who = f"data set {body.root.hex()[:16]}"
    if body.root == NO_DIGEST or not body.replicas:
        raise TransactionError(f"{who} needs a root and at least one replica")
    if body.root in draft.datasets:
        raise TransactionError(f"{who} is registered already")
    parent = draft.datasets.get(body.parent)
    if body.parent != NO_DIGEST and (parent is None or parent.owner != sender):
        raise TransactionError(f"{who} extends {body.parent.hex()[:16]}, which its owner did not register")
    # Who lost access to what it extends must not get it back: its new chunks have the newest key.
    generation = parent.generation if parent is not None and body.encrypted else 0
    draft.datasets[body.root] = DatasetRecord(
        body.root, sender, body.name, body.replicas, body.parity, body.encrypted, body.parent, generation, ()
    )


def grant(draft: Draft, sender: bytes, body: Grant) -> None:
    """Give roles, or a data set's key. Keys are readable at once; roles count from the next epoch on."""
    if not _names_one(body.roles, body.dataset):
        raise TransactionError("a grant gives roles, or access to one data set")
    if body.roles:
        if body.generation or body.wrapped:
            raise TransactionError("a grant of roles carries no key")
        draft.need(sender, Action.GRANT_ROLES)
        account = draft.accounts.get(body.grantee) or Account(body.grantee, body.grantee)
        if account.slashed:
            raise TransactionError(f"{body.grantee.hex()[:16]} lost its stake by its own fault")
        if not body.roles & ~account.granted:
            raise TransactionError(f"{body.grantee.hex()[:16]} has {Role(body.roles).names} already")
        # A member's vote needs stake as well, which only its own JOIN or STAKE brings.
        roles = account.roles | body.roles if account.roles else 0
        granted, barred = account.granted | body.roles, account.barred & ~body.roles
        draft.view_changed = True
        draft.put(replace(account, granted=granted, roles=roles, barred=barred))
        return
    found = _owned(draft, sender, body.dataset)
    if not found.encrypted or not body.wrapped:
        raise TransactionError("a grant of access needs an encrypted data set and a wrapped key")
    draft.account(body.grantee)
    if body.generation > found.generation:
        raise TransactionError(f"generation {body.generation} of {found.generation} has no key yet")
    if any((a.grantee, a.generation) == (body.grantee, body.generation) for a in found.readers):
        raise TransactionError(
            f"{body.grantee.hex()[:16]} has the key of generation {body.generation} already"
        )
    if len(found.readers) >= MOST_READERS:
        raise TransactionError(f"data set {body.dataset.hex()[:16]} has {MOST_READERS} keys out; revoke some")
    access = Access(body.grantee, body.generation, body.wrapped)
    readers = sorted((*found.readers, access), key=lambda a: (a.grantee, a.generation))
    draft.datasets[body.dataset] = replace(found, readers=tuple(readers))


def revoke(draft: Draft, sender: bytes, body: Revoke) -> None:
    """Take roles or access back; what could be read stays known to who kept it.

    Roles that were taken need an admin's grant to come back: a JOIN cannot choose them.
    """
    who = body.grantee.hex()[:16]
    if not _names_one(body.roles, body.dataset):
        raise TransactionError("a revocation takes roles, or access to one data set")
    if not body.roles:
        found = _owned(draft, sender, body.dataset)
        readers = tuple(a for a in found.readers if a.grantee != body.grantee)
        if len(readers) == len(found.readers):
            raise TransactionError(f"{who} has no key of data set {body.dataset.hex()[:16]}")
        draft.datasets[body.dataset] = replace(found, readers=readers, generation=found.generation + 1)
        return
    draft.need(sender, Action.REVOKE_ROLES)
    account = draft.account(body.grantee)
    if not body.roles & (account.roles | account.granted | SELF_CHOSEN & ~account.barred):
        raise TransactionError(f"{who} does not have {Role(body.roles).names}")
    admins = sum(1 for a in draft.accounts.values() if a.roles & Role.ADMIN)
    if body.roles & account.roles & Role.ADMIN and admins == 1:
        raise TransactionError(f"{who} is the last admin")
    kept = ~body.roles
    changed = replace(
        account,
        roles=account.roles & kept,
        granted=account.granted & kept,
        barred=account.barred | body.roles,
    )
    if account.is_validator and not changed.is_validator:
        draft.check_not_last(account, "lose its role")
        draft.check_churn(account.stake)
        draft.count_churn(account.stake)
        changed = unbonded(draft, changed, account.stake)
    draft.view_changed = True
    draft.put(changed)


def config(draft: Draft, sender: bytes, body: Config) -> None:
    """Change options."""
    draft.need(sender, Action.CONFIGURE)
    if not body.pairs:
        raise TransactionError("a configuration without options changes nothing")
    options.check(dict(body.pairs))
    merged = dict(draft.run.options) | dict(body.pairs)
    draft.view_changed = True
    draft.run = replace(draft.run, options=tuple(sorted(merged.items())))


def beacon(draft: Draft, sender: bytes, body: Beacon) -> None:
    """Note how far the sender's training is."""
    account = draft.account(sender)
    if not account.roles & _TRAINS:
        raise TransactionError(f"{sender.hex()[:16]} does not train")
    if body.round <= account.round:
        raise TransactionError(f"{sender.hex()[:16]} reported round {account.round} before, now {body.round}")
    draft.put(account.changed(round=body.round))


def begin(draft: Draft, sender: bytes, body: Begin) -> None:
    """Start a run."""
    draft.need(sender, Action.BEGIN_RUN)
    if draft.run.running:
        raise TransactionError(f"run {draft.run.run_id.hex()[:16]} has not ended")
    if body.run_id in (NO_DIGEST, draft.run.run_id):
        raise TransactionError(f"run id {body.run_id.hex()[:16]} is not a new one")
    draft.run = Run(draft.run.options, body.run_id, body.config, began=draft.height)


def checkpoint(draft: Draft, body: Checkpoint) -> None:
    """Record a checkpoint that a quorum holds."""
    if not draft.run.running:
        raise TransactionError("no run is going on that a checkpoint could be of")
    if draft.run.checkpoints and body.round <= draft.run.checkpoints[-1].round:
        raise TransactionError(
            f"round {draft.run.checkpoints[-1].round} has a checkpoint, now one of {body.round}"
        )
    _attested(draft, body)
    record = CheckpointRecord(body.round, body.root, body.epoch, draft.height)
    draft.run = replace(draft.run, checkpoints=(*draft.run.checkpoints, record)[-KEPT_CHECKPOINTS:])


def audit(draft: Draft, body: Audit) -> None:
    """Record a quorum's finding; the stake of the guilty is lost."""
    account, who = draft.account(body.subject), body.subject.hex()[:16]
    if not account.roles and not account.locked:
        raise TransactionError(f"{who} is no member and has no stake")
    if any((a.subject, a.round) == (body.subject, body.round) for a in draft.run.audits):
        raise TransactionError(f"round {body.round} of {who} has been audited")
    if body.guilty:
        draft.check_not_last(account, "be slashed")
    _attested(draft, body)
    if body.guilty:
        slash(draft, draft.account(body.subject))
    record = AuditRecord(body.subject, body.round, body.guilty, body.digest, draft.height)
    draft.run = replace(draft.run, audits=(*draft.run.audits, record)[-KEPT_AUDITS:])


def withheld(draft: Draft, body: Withheld) -> None:
    """Take the stake of who does not hold what it owes of a registered data set, as a quorum found."""
    account, who = draft.account(body.node), body.node.hex()[:16]
    if not account.roles and not account.locked:
        raise TransactionError(f"{who} is no member and has no stake")
    if body.dataset not in draft.datasets:
        raise TransactionError(
            f"data set {body.dataset.hex()[:16]} is not registered, so that {who} owes nothing of it"
        )
    draft.check_not_last(account, "be slashed")
    _attested(draft, body)
    slash(draft, draft.account(body.node))


def end(draft: Draft, body: End) -> None:
    """Record the end of the run."""
    if not draft.run.running or draft.run.run_id != body.run_id:
        raise TransactionError(f"run {body.run_id.hex()[:16]} is not going on")
    _attested(draft, body)
    draft.run = replace(draft.run, ended=draft.height, end_round=body.round, end_root=body.root)


def _attested(draft: Draft, body: Attested) -> None:
    """Check for a quorum of this epoch, or of the one before while signatures were under way.

    It is the last check: signing shows that a validator lives, which is noted.
    """
    table = draft.table_of(body.epoch, draft.epoch - 1)
    body.attestation.verify(table, draft.state.chain_id, statement(body))
    for index in from_bitmap(body.attestation.signers):
        account = draft.account(table[index].node_id)
        draft.put(account.changed(seen=draft.height))


def _owned(draft: Draft, sender: bytes, root: bytes) -> DatasetRecord:
    draft.need(sender, Action.GRANT_DATA)
    found = draft.datasets.get(root)
    if found is None:
        raise TransactionError(f"no data set {root.hex()[:16]} is registered")
    draft.denying(lambda: check_data(sender, found, Action.GRANT_DATA))
    return found


def _names_one(roles: int, dataset: bytes) -> bool:
    return bool(roles) != (dataset != NO_DIGEST)
