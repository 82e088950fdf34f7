"""What a ledger of so many validators and followers sends: the sizes of its own messages, counted once each.

A block that its first round decides costs every validator a PREPARE and a COMMIT to every other, and the
leader the block to every other (three message delays; ``pydec.consensus.replica``). Whoever has no seat
fetches each block with its certificate from one peer, and hears and tells a head per neighbour in each round
of training; a light client fetches no block, only one step for each change of committee
(``pydec.consensus.light``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydec.consensus.block import Block, Header, transactions_root
from pydec.consensus.certificate import QuorumCertificate
from pydec.consensus.light import EpochStep, encode_step
from pydec.consensus.messages import Decision, Head, Proposal, SyncRequest, Vote, encode
from pydec.consensus.signed import Kind
from pydec.consensus.transactions import Beacon, sign
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.crypto.signing import SIGNATURE_BYTES, SigningKey

_CHAIN, _SIGNATURE = bytes(32), bytes(SIGNATURE_BYTES)


@dataclass(frozen=True)
class LedgerCost:
    """Bytes, the network's headers left out.

    Args:
        block: a block with its certificate, as it is stored and fetched.
        validator_sent: what one validator sends for a block, the mean over who leads.
        follower_received: what one peer without a seat receives for a block.
        head: what every peer sends to each neighbour in a round of training, as far as there are followers.
        epoch_step: what a light client fetches for a change of committee.
    """

    block: int
    validator_sent: float
    follower_received: int
    head: int
    epoch_step: int


def ledger_cost(validators: int, transactions: Sequence[bytes] | None = None) -> LedgerCost:
    """Count the bytes of a block that all of equally many units of stake agree on in round 0.

    Args:
        validators: with a vote, 1 to 1024.
        transactions: of the block; one report of progress if None.
    """
    members = [number.to_bytes(32, "big") for number in range(1, 1 + validators)]
    table = ValidatorTable.of(0, [Validator(member, member, 1, "rank:0") for member in members])
    quorum = dict.fromkeys(range(2 * validators // 3 + 1), _SIGNATURE)
    commit = QuorumCertificate.of(Kind.COMMIT, table, 1, 0, bytes(32), quorum)
    if transactions is None:
        transactions = (sign(SigningKey(bytes(32)), _CHAIN, 1, Beacon(1)),)
    roots = transactions_root(transactions), bytes(32), table.digest()
    header = Header(_CHAIN, 0, 2, bytes(32), commit, *roots, 0, 0)
    block = Block(header, tuple(transactions)).encode()
    vote = len(encode(Vote(Kind.COMMIT, 0, 2, 0, bytes(32), 0, _SIGNATURE), _CHAIN))
    proposal = len(encode(Proposal(0, 2, 0, block, None, None, _SIGNATURE), _CHAIN))
    decision = len(encode(Decision(2, commit, block), _CHAIN))
    head, request = len(encode(Head(0, 2, bytes(32)), _CHAIN)), len(encode(SyncRequest(2), _CHAIN))
    others = validators - 1
    return LedgerCost(
        decision,
        others * (2 * vote + proposal / validators),
        decision + head + request,  # the answer comes with the head of whoever answers
        head,
        len(encode_step(EpochStep(header, commit, table))),
    )
