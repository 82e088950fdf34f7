"""What a block's transactions do to the state, which a proposer takes, and which may wait in a pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydec.consensus.block import Header, packed_bytes
from pydec.consensus.equivocation import Equivocation
from pydec.consensus.state import membership, records
from pydec.consensus.state.draft import Draft, NotYetError
from pydec.consensus.transactions import (
    Audit,
    Beacon,
    Begin,
    Checkpoint,
    Config,
    Dataset,
    Dead,
    End,
    Evict,
    EvidenceOf,
    Forgery,
    Grant,
    Join,
    Key,
    Leave,
    Revoke,
    Stake,
    Transaction,
    Transfer,
    Withheld,
    prove,
)
from pydec.crypto.hashing import sha256
from pydec.errors import FrameError, SignatureError, TransactionError

if TYPE_CHECKING:
    from pydec.consensus.state.chain import ChainState

_MOST_VERIFIED = 1 << 14
_SHORT_BYTES = 1 << 12  # of a transaction that is remembered when it has been read: 16 MiB of them at most
_verified: dict[bytes, None] = {}  # names of signed transactions whose signature was found good, oldest first
AHEAD = 64  # sequence numbers that a pool keeps for one sender beyond its next
_SIGNED: dict[type, Callable[[Draft, bytes, Any], None]] = {
    Join: membership.join,
    Leave: membership.leave,
    Stake: membership.stake,
    Transfer: membership.transfer,
    Key: membership.key,
    Dataset: records.dataset,
    Grant: records.grant,
    Revoke: records.revoke,
    Config: records.config,
    Beacon: records.beacon,
    Begin: records.begin,
}
_PROVEN: dict[type, Callable[[Draft, Any], None]] = {
    EvidenceOf: membership.evidence,
    Evict: membership.evict,
    Dead: membership.dead,
    Equivocation: membership.equivocation,
    Forgery: membership.forgery,
    Checkpoint: records.checkpoint,
    Audit: records.audit,
    Withheld: records.withheld,
    End: records.end,
}


def draft_of(state: ChainState, header: Header) -> Draft:
    """An empty draft of the block with this header.

    Raises:
        TransactionError: the header does not follow the state.
    """
    expected = (state.chain_id, state.height + 1, state.table.epoch)
    if (header.chain_id, header.height, header.epoch) != expected:
        raise TransactionError(
            f"height {header.height}, epoch {header.epoch} of {header.chain_id.hex()[:16]} cannot follow "
            f"height {state.height} of {state.chain_id.hex()[:16]}: epoch {state.table.epoch} decides"
        )
    return Draft(state, header.height, header.parent_hash)


def apply(draft: Draft, data: bytes) -> None:
    """Execute one transaction.

    Raises:
        TransactionError: it is refused, and the draft is as before.
    """
    transaction = decoded(data, draft.state.rules.transaction_bytes)
    body = transaction.body
    if transaction.proven:
        if isinstance(body, EvidenceOf):
            if draft.after_evidence:
                raise TransactionError("evidence comes before all other transactions of a block")
            if draft.evidence_bytes + len(data) > draft.state.rules.evidence_bytes:
                raise TransactionError(
                    f"a block takes {draft.state.rules.evidence_bytes} bytes of evidence at most"
                )
        _PROVEN[type(body)](draft, body)
        if isinstance(body, EvidenceOf):
            draft.evidence_bytes += len(data)
        else:
            draft.after_evidence = True
        return
    _check_sender(draft, transaction, data)
    _SIGNED[type(body)](draft, transaction.sender, body)
    account = draft.accounts[transaction.sender]
    draft.put(account.changed(sequence=account.sequence + 1, seen=draft.height))
    draft.after_evidence = True


def select(draft: Draft, pool: Sequence[bytes], max_bytes: int) -> list[bytes]:
    """What a proposer puts into a block: evidence first, then who is to be evicted, then the pool in its
    order.

    A sender's transactions are taken in the order of their numbers. What is refused now is left out.
    """
    chosen: list[bytes] = []
    room = max_bytes
    for data in _in_order(draft, pool):
        if packed_bytes((data,)) > room:
            continue
        try:
            apply(draft, data)
        except TransactionError:
            continue
        chosen.append(data)
        room -= packed_bytes((data,))
    return chosen


def check(draft: Draft, data: bytes) -> None:
    """Whether a transaction may wait in a pool: what can never become right, or costs nothing to send, may
    not.

    Raises:
        TransactionError: it may not.
    """
    transaction = decoded(data, draft.state.rules.transaction_bytes)
    if transaction.proven:
        _allow_later(draft, data)
        return
    account = draft.accounts.get(transaction.sender)
    expected = 0 if account is None else account.sequence
    if not expected <= transaction.sequence < expected + AHEAD:
        raise TransactionError(
            f"transaction {transaction.sequence} of {transaction.sender.hex()[:16]}; its next is {expected}"
        )
    if transaction.sequence == expected or account is None:
        _allow_later(draft, data)  # a newcomer pays before its transactions take anybody's memory
    else:
        _check_signature(draft, transaction, data)


def decoded(data: bytes, most: int) -> Transaction:
    """A transaction of at most ``most`` bytes.

    Raises:
        TransactionError: too long, or no transaction.
    """
    if len(data) > most:
        raise TransactionError(f"a transaction of {len(data)} bytes; the chain takes {most}")
    try:
        return _decoded(data) if len(data) <= _SHORT_BYTES else Transaction.decode(data)
    except FrameError as error:
        raise TransactionError(str(error)) from None


@lru_cache(maxsize=1 << 12)
def _decoded(data: bytes) -> Transaction:
    """A pool, a proposal and a block read the same bytes one after the other; errors are not kept."""
    return Transaction.decode(data)


def _allow_later(draft: Draft, data: bytes) -> None:
    try:
        apply(draft, data)
    except NotYetError:
        pass


def _check_sender(draft: Draft, transaction: Transaction, data: bytes) -> None:
    account, who = draft.accounts.get(transaction.sender), transaction.sender.hex()[:16]
    if account is None and not isinstance(transaction.body, Join):
        raise TransactionError(f"the chain knows no account {who}")
    expected = 0 if account is None else account.sequence
    if transaction.sequence != expected:
        raise TransactionError(f"transaction {transaction.sequence} of {who}; its next is {expected}")
    _check_signature(draft, transaction, data)


def _check_signature(draft: Draft, transaction: Transaction, data: bytes) -> None:
    """Verify, once for each transaction: a pool is checked again after every block."""
    name = sha256(draft.state.chain_id, data)
    if name in _verified:
        return
    try:
        transaction.verify(draft.state.chain_id)
    except SignatureError as error:
        raise TransactionError(str(error)) from None
    if len(_verified) >= _MOST_VERIFIED:
        del _verified[next(iter(_verified))]
    _verified[name] = None


def _in_order(draft: Draft, pool: Iterable[bytes]) -> Iterator[bytes]:
    """Evidence, evictions, and the rest; a sender's transactions by number, when their turn has come."""
    evidence: list[bytes] = []
    others: list[tuple[Transaction, bytes]] = []
    waiting: dict[tuple[bytes, int], bytes] = {}
    for data in pool:
        try:
            transaction = decoded(data, draft.state.rules.transaction_bytes)
        except TransactionError:
            continue
        if isinstance(transaction.body, EvidenceOf):
            evidence.append(data)
        else:
            others.append((transaction, data))
            if not transaction.proven:
                waiting.setdefault((transaction.sender, transaction.sequence), data)
    yield from evidence
    for presence in draft.state.presence:
        if draft.state.is_absent(presence.node_id):
            yield prove(Evict(presence.node_id))
    for transaction, data in others:
        if transaction.proven:
            yield data
            continue
        while True:  # the next of this sender that is here, as long as each is taken
            account = draft.accounts.get(transaction.sender)
            turn = (transaction.sender, account.sequence if account else 0)
            following = waiting.pop(turn, None)
            if following is None:
                break
            yield following
