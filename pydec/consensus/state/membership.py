"""Who comes, who goes, and who loses its stake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pydec.consensus.access import check_join
from pydec.consensus.certificate import from_bitmap
from pydec.consensus.equivocation import Equivocation
from pydec.consensus.evidence import Evidence, EvidenceError, verify
from pydec.consensus.puzzle import Puzzle
from pydec.consensus.roles import Role
from pydec.consensus.state.draft import Draft, NotYetError
from pydec.consensus.state.parts import Account
from pydec.consensus.transactions import (
    NO_DIGEST,
    Dead,
    Evict,
    EvidenceOf,
    Forgery,
    Join,
    Key,
    Leave,
    Stake,
    Transfer,
    statements,
)
from pydec.consensus.validators import MAX_VALIDATORS, ValidatorTable
from pydec.crypto.claims import claim_bytes
from pydec.crypto.runkey import RunCertificate
from pydec.crypto.serving import serving_bytes
from pydec.crypto.signing import verify as verify_signature
from pydec.errors import FrameError, SignatureError, TransactionError


def join(draft: Draft, sender: bytes, body: Join) -> None:
    """Make the sender a member; its admission must be paid for.

    Stake that is still locked since an earlier membership may be bonded again: it stays where evidence finds
    it. So who was held for dead and lives comes back with what it had.
    """
    account = draft.accounts.get(sender) or Account(sender, sender)
    asked, who = Role(body.roles), sender.hex()[:16]
    if account.roles:
        raise TransactionError(f"{who} is a member already")
    if not asked:
        raise TransactionError(f"{who} asks to join without a role")
    admission = draft.option("admission", draft.state.rules.admission)
    draft.denying(lambda: check_join(sender, account, asked, admission))
    key = _voting_key(draft, sender, body.certificate)
    stake, entry = _bonded(draft, account, body, admission)
    check_puzzle(draft, sender, body, admission)
    if draft.supply.total + entry >= 1 << 62:
        raise TransactionError(f"an entry of {entry} would bring all stake to 2^62")
    if stake:
        if sum(1 for _ in draft.validators()) >= MAX_VALIDATORS:
            raise NotYetError(f"there are {MAX_VALIDATORS} validators, and there is no room for more")
        draft.check_cap(sender, stake)
        draft.check_churn(stake)
        draft.count_churn(stake)
    free = min(account.balance, stake - entry)
    draft.supply = replace(draft.supply, minted=draft.supply.minted + entry)
    draft.work = replace(draft.work, joins=draft.work.joins + 1)
    draft.view_changed = True
    draft.put(
        replace(
            account,
            key=key,
            address=body.address,
            roles=int(asked),
            stake=stake,
            entry=entry,
            balance=account.balance - free,
            locked=account.locked - (stake - entry - free),
            joined=draft.height,
            round=0,
        )
    )


def check_puzzle(draft: Draft, sender: bytes, body: Join, admission: str) -> None:
    """Whether the JOIN carries what the admission asks for, and nothing else."""
    if admission != "pow":
        if body.nonce or body.block != NO_DIGEST:
            raise TransactionError(f"admission is by {admission}, which takes no puzzle's solution")
        return
    if body.block not in draft.recent:
        raise TransactionError(
            f"the puzzle's block {body.block.hex()[:16]} is not one of the last {len(draft.recent)}; "
            "solve it again"
        )
    state, work = draft.state, draft.work
    Puzzle(state.rules.puzzle, state.chain_id, work.period, body.block, sender, work.target).verify(
        body.nonce
    )


def _bonded(draft: Draft, account: Account, body: Join, admission: str) -> tuple[int, int]:
    """Stake of a joining account, and how much of it comes with the entry."""
    who, least = account.node_id.hex()[:16], draft.state.rules.min_stake
    if not body.roles & Role.VALIDATOR:
        if body.stake:
            raise TransactionError(f"{who} bonds {body.stake} but does not join as validator")
        return 0, 0
    if admission != "stake":
        if body.stake:
            raise TransactionError(
                f"{who} bonds {body.stake}, but entry by {admission} brings {least} and no more"
            )
        return least, least
    if not least <= body.stake <= account.balance + account.locked:
        locked = f", {account.locked} locked" if account.locked else ""
        raise TransactionError(
            f"{who} bonds {body.stake}; it has a balance of {account.balance}{locked} and needs at least "
            f"{least}"
        )
    return body.stake, 0


def _voting_key(draft: Draft, sender: bytes, certificate: bytes) -> bytes:
    """The key that a certificate, or its absence, names; nobody else's."""
    key = sender
    if certificate:
        try:
            run = RunCertificate.decode(certificate)
            run.verify(draft.state.chain_id, draft.epoch + 1)
        except (FrameError, SignatureError) as error:
            raise TransactionError(str(error)) from None
        if run.identity != sender:
            raise TransactionError(
                f"the run certificate is of {run.identity.hex()[:16]}, not of its sender {sender.hex()[:16]}"
            )
        key = run.key
    for account in draft.accounts.values():
        if account.node_id != sender and key in (account.key, account.node_id):
            raise TransactionError(f"key {key.hex()[:16]} is that of {account.node_id.hex()[:16]}")
    return key


def leave(draft: Draft, sender: bytes, body: Leave) -> None:
    """End the sender's membership."""
    account = draft.account(sender)
    if not account.roles:
        raise TransactionError(f"{sender.hex()[:16]} is no member")
    remove(draft, account, "leave")


def remove(draft: Draft, account: Account, action: str) -> None:
    """Take an account out of the members; its stake stays locked for the evidence window."""
    draft.check_not_last(account, action)
    if account.is_validator:
        draft.check_churn(account.stake)
        draft.count_churn(account.stake)
    draft.view_changed = True
    draft.put(unbonded(draft, replace(account, roles=0), account.stake))


def unbonded(draft: Draft, account: Account, amount: int) -> Account:
    """``account`` with ``amount`` of its stake locked; the part that entry brought is burned."""
    burned = max(0, account.entry - (account.stake - amount))
    draft.supply = replace(draft.supply, burned=draft.supply.burned + burned)
    return replace(
        account,
        stake=account.stake - amount,
        entry=account.entry - burned,
        locked=account.locked + amount - burned,
        last_epoch=draft.epoch,
    )


def stake(draft: Draft, sender: bytes, body: Stake) -> None:
    """Bond or unbond."""
    account, who = draft.account(sender), sender.hex()[:16]
    if not account.is_validator:
        raise TransactionError(f"{who} is no validator and bonds nothing; join as one")
    if not body.amount:
        raise TransactionError(f"{who} bonds or unbonds 0")
    if body.more:
        if body.amount > account.balance:
            raise TransactionError(f"{who} bonds {body.amount} of a balance of {account.balance}")
        draft.check_cap(sender, account.stake + body.amount)
    else:
        least = max(draft.state.rules.min_stake, account.entry)
        if account.stake - body.amount < least:
            raise TransactionError(
                f"{who} unbonds {body.amount} of {account.stake}; {least} must stay, or leave"
            )
    draft.check_churn(body.amount)
    draft.count_churn(body.amount)
    draft.view_changed = True
    if body.more:
        draft.put(replace(account, balance=account.balance - body.amount, stake=account.stake + body.amount))
    else:
        draft.put(unbonded(draft, account, body.amount))


def transfer(draft: Draft, sender: bytes, body: Transfer) -> None:
    """Move free balance."""
    account = draft.account(sender)
    if not 0 < body.amount <= account.balance:
        raise TransactionError(
            f"{sender.hex()[:16]} transfers {body.amount} of a balance of {account.balance}"
        )
    if body.to == sender:
        raise TransactionError(f"{sender.hex()[:16]} transfers to itself")
    target = draft.accounts.get(body.to) or Account(body.to, body.to)
    if any(body.to == other.key for other in draft.accounts.values() if other.node_id != body.to):
        raise TransactionError(f"{body.to.hex()[:16]} is a run key; transfer to its identity")
    draft.put(replace(account, balance=account.balance - body.amount))
    draft.put(replace(target, balance=target.balance + body.amount))


def key(draft: Draft, sender: bytes, body: Key) -> None:
    """Vote with another key from the next epoch on."""
    account = draft.account(sender)
    if not account.is_validator:
        raise TransactionError(f"{sender.hex()[:16]} is no validator and has no voting key")
    new = _voting_key(draft, sender, body.certificate)
    if new == account.key:
        raise TransactionError(f"{sender.hex()[:16]} votes with key {new.hex()[:16]} already")
    draft.view_changed = True
    draft.put(replace(account, key=new))


def evict(draft: Draft, body: Evict) -> None:
    """Remove a validator that the chain shows to be absent; its stake is locked and it may join again."""
    account = draft.account(body.node)
    if not draft.state.is_absent(body.node):
        missed, blocks = draft.state.missed(body.node), draft.state.rules.downtime_blocks
        raise TransactionError(
            f"{body.node.hex()[:16]} missed {missed} of the last {blocks} commits and sent its last "
            f"transaction at height {account.seen}; who missed more than half and sent none is absent"
        )
    if not account.is_validator:
        raise TransactionError(f"{body.node.hex()[:16]} is no validator any more")
    remove(draft, account, "be evicted")


def dead(draft: Draft, body: Dead) -> None:
    """Remove a member that a quorum of this epoch, or of the one before, holds for dead.

    Nothing is slashed: its stake is locked as if it had left, and it may join again with it. The churn of an
    epoch counts it, and who does not fit waits for the next epoch, which the next block may begin. The view
    without it begins beyond what the signers said.
    """
    account, who = draft.account(body.node), body.node.hex()[:16]
    if not account.roles & (Role.TRAINER | Role.VALIDATOR):
        raise TransactionError(f"{who} is no member that could be held for dead")
    table = draft.table_of(body.epoch, draft.epoch - 1)
    began = draft.height if body.epoch == draft.epoch else draft.state.changed
    if account.joined >= began:
        raise TransactionError(
            f"{who} has joined again at height {account.joined}, after epoch {body.epoch} held it for dead"
        )
    signers = from_bitmap(body.attestation.signers)
    if table.index(body.node) in signers:
        raise TransactionError(f"{who} has signed itself that it is dead")
    body.attestation.verify_each(table, draft.state.chain_id, statements(body))
    others = draft.view_changed
    remove(draft, account, "be held for dead")
    draft.view_changed = others  # of what needs no signers' rounds
    for index in signers:  # who signs lives
        signer = draft.account(table[index].node_id)
        draft.put(replace(signer, seen=draft.height))
    round = first_round(table, dict(zip(signers, body.rounds, strict=True)))
    draft.death_round = max(draft.death_round or 0, round)


def first_round(table: ValidatorTable, rounds: Mapping[int, int]) -> int:
    """Where a view may begin so that nobody has passed it yet, from the rounds that its signers wait at.

    The highest that more than a third of the stake names, so that an honest one does and liars can move it no
    further; and one round more for every member, because neighbours of neighbours may be ahead by that much.

    Args:
        table: of the signers.
        rounds: by index in it.
    """
    weight = 0
    for index in sorted(rounds, key=lambda index: -rounds[index]):
        weight += table[index].stake
        if table.blocking(weight):
            return rounds[index] + len(table)
    return 0


def evidence(draft: Draft, body: EvidenceOf) -> None:
    """Take the stake of who signed two statements that contradict each other."""
    who = body.node.hex()[:16]
    try:
        found = Evidence.decode(body.evidence)
    except FrameError as error:
        raise TransactionError(f"evidence against {who}: {error}") from None
    table = draft.table_of(found.epoch, 0)
    index = table.index(body.node)
    if index is None:
        raise TransactionError(f"{who} was no validator of epoch {found.epoch}")
    account = draft.account(body.node)
    if not account.stake and not account.locked:
        raise TransactionError(f"{who} has nothing left to lose")
    try:
        verify(found, table[index].key, draft.state.chain_id)
    except (EvidenceError, SignatureError) as error:
        raise TransactionError(f"evidence against {who}: {error}") from None
    slash(draft, account)


def forgery(draft: Draft, body: Forgery) -> None:
    """Take the stake of who signed that it gave something else than an object that it was asked for."""
    who = body.node.hex()[:16]
    if body.name == body.digest:
        raise TransactionError(f"{who} gave what it was asked for")
    account = draft.account(body.node)
    if not account.roles and not account.stake and not account.locked:
        raise TransactionError(f"{who} has nothing left to lose")
    said = serving_bytes(draft.state.chain_id, body.asker, body.request, body.name, body.digest)
    try:
        verify_signature(body.node, said, body.signature)
    except SignatureError as error:
        raise TransactionError(f"forgery of {who}: {error}") from None
    slash(draft, account)


def equivocation(draft: Draft, body: Equivocation) -> None:
    """Take the stake of who signed two digests of one packet: it told its neighbours different things.

    Of the run that began last: what is left of an earlier one is not judged any more.
    """
    who = body.node.hex()[:16]
    if body.run_id == NO_DIGEST or body.run_id != draft.run.run_id:
        raise TransactionError(
            f"claims of {who} are of run {body.run_id.hex()[:16]}, not {draft.run.run_id.hex()[:16]}"
        )
    if not body.first < body.second:
        raise TransactionError(f"claims of {who} name no two digests in their order")
    account = draft.account(body.node)
    if not account.roles and not account.stake and not account.locked:
        raise TransactionError(f"{who} has nothing left to lose")
    context = draft.state.chain_id + body.run_id
    for digest, signature in ((body.first, body.first_signature), (body.second, body.second_signature)):
        try:
            said = claim_bytes(context, body.epoch, body.round, body.number, digest)
            verify_signature(body.node, said, signature)
        except SignatureError as error:
            raise TransactionError(f"claims of {who}: {error}") from None
    slash(draft, account)


def slash(draft: Draft, account: Account) -> None:
    """Burn everything bonded and end the membership for good. The churn limit does not protect the guilty."""
    draft.check_not_last(account, "be slashed")
    draft.supply = replace(draft.supply, burned=draft.supply.burned + account.stake + account.locked)
    draft.view_changed = True
    draft.put(replace(account, roles=0, granted=0, stake=0, entry=0, locked=0, slashed=1))
