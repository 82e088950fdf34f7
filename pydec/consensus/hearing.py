"""Checks on what arrives for the height in progress, cheapest first, signatures last (rules 3 and 9).

What honest nodes also send, late or twice, is dropped in silence; what no honest node sends raises
``Refused``, and the driver hears who sent it and why.
"""

from __future__ import annotations

from pydec.consensus.access import Action
from pydec.consensus.certificate import CertificateError, QuorumCertificate, TimeoutCertificate
from pydec.consensus.effects import Refused
from pydec.consensus.height import AHEAD, BEHIND, Height
from pydec.consensus.messages import BlockBody, Decision, NewRound, Proposal, Timeout, Vote
from pydec.consensus.signed import Kind, SignedStatement, signed_bytes, timeout_body
from pydec.errors import AccessDenied, SignatureError


class Impossible(Exception):
    """A quorum certified a block that this node cannot hold to be valid. It must not go on."""


def _author(height: Height, sender: bytes, epoch: int, index: int) -> int:
    """Index of a message's author, who must be its sender and in this epoch's table."""
    table = height.place.table
    if epoch != table.epoch:
        raise Refused(
            f"a message of epoch {epoch} at height {height.place.height}, which is of {table.epoch}"
        )
    if table.index(sender) is None:
        needed = f"a place among the validators of epoch {epoch}, as the role validator and stake give"
        raise AccessDenied(sender, Action.VOTE.value, b"", needed)
    if index >= len(table) or table[index].node_id != sender:
        raise Refused(f"a message as validator {index}, which the sender is not")
    return index


def _check(height: Height, index: int, kind: Kind, round: int, body: bytes, signature: bytes) -> None:
    """Verify a signature and look for what it contradicts."""
    place = height.place
    where = (place.chain_id, place.table.epoch, place.height, round)
    try:
        place.verifier.check(place.table[index].key, signed_bytes(kind, *where, body), signature)
    except SignatureError as error:
        raise Refused(f"a bad signature: {error}") from None
    height.observe(index, SignedStatement(kind, *where, body, signature))


def _learn(height: Height, certificate: QuorumCertificate, kind: Kind = Kind.PREPARE) -> None:
    """Verify a certificate and look for what its signers contradict."""
    place = height.place
    try:
        certificate.verify(place.chain_id, place.table, place.height, kind, place.verifier)
    except CertificateError as error:
        raise Refused(str(error)) from None
    compare(height, certificate)


def compare(height: Height, certificate: QuorumCertificate) -> None:
    """Look for what the signers of a verified certificate contradict, where it is news."""
    place, kind, round, body = height.place, certificate.kind, certificate.round, certificate.block_hash
    for index, signature in zip(certificate.signers(), certificate.signatures, strict=True):
        if not height.detector.knows(place.table[index].key, kind, round, body):
            where = (place.chain_id, certificate.epoch, certificate.height, round)
            height.observe(index, SignedStatement(kind, *where, body, signature))


def _prepared(
    height: Height, high_round: int, prepared: QuorumCertificate | None
) -> QuorumCertificate | None:
    """The prepare certificate that goes with a high round, verified: the known one if it says the same."""
    if prepared is None:
        if high_round >= 0:
            raise Refused(f"high round {high_round} without its certificate")
        return None
    if prepared.round != high_round:
        raise Refused(f"a certificate of round {prepared.round} where {high_round} is the high round")
    known = height.certificates.get(prepared.round)
    if known is not None and known.block_hash == prepared.block_hash:
        return known
    _learn(height, prepared)
    return prepared


def _ended(height: Height, round: int, ended: TimeoutCertificate | None) -> TimeoutCertificate:
    """The timeout certificate that led to a round, verified."""
    place = height.place
    if ended is None or ended.round != round - 1:
        raise Refused(f"round {round} without the timeout certificate of round {round - 1}")
    if ended == height.record.ended:
        return ended
    try:
        ended.verify(place.chain_id, place.table, place.height, place.verifier)
    except CertificateError as error:
        raise Refused(str(error)) from None
    for index, statement in ended.statements(place.chain_id):
        height.observe(index, statement)
    return ended


def _enter(height: Height, ended: TimeoutCertificate, prepared: QuorumCertificate | None) -> None:
    """Both verified: go to the round after ``ended``, and learn of ``prepared``."""
    height.enter(ended, _named(height, ended, prepared))
    if prepared is not None:
        height.learn(prepared)


def justified(height: Height, proposal: Proposal) -> None:
    """Rule 3: why this round, and which block it may propose, but for the block itself.

    Enters the round if the proposal proves it. Raises ``Refused`` for a proposal that nothing justifies.
    """
    if proposal.round == 0:
        if proposal.timeout is not None or proposal.prepared is not None:
            raise Refused("a proposal of round 0 with certificates")
        return
    ended = _ended(height, proposal.round, proposal.timeout)
    _enter(height, ended, _prepared(height, ended.high_round, proposal.prepared))


def proposal(height: Height, sender: bytes, message: Proposal) -> None:
    """PROPOSAL (rule 3)."""
    place = height.place
    if message.epoch != place.table.epoch:
        raise Refused(f"a proposal of epoch {message.epoch}, this height is of {place.table.epoch}")
    if message.round < height.round and message.round not in height.proposals:
        return
    if message.round > height.round:
        # The certificate comes first: without it a round far away would cost a long look for its leader.
        justified(height, message)
    leader = place.leader(message.round)
    if place.table[leader].node_id != sender:
        raise Refused(f"a proposal of round {message.round}, which the sender does not lead")
    if message.round in height.proposals and leader in height.guilty:
        return
    block_hash, block = place.parse(message.block)
    if height.proposals.get(message.round) == block_hash:
        return
    _check(height, leader, Kind.PROPOSAL, message.round, block_hash, message.signature)
    if message.round in height.proposals or message.round < height.round:
        return  # a second, different one: evidence only
    try:
        justified(height, message)
        if message.prepared is not None:
            if message.prepared.block_hash != block_hash:
                raise Refused("another block than the one that the timeout certificate's high round prepared")
        elif (block.header.origin_round, block.header.origin_proposer) != (message.round, leader):
            raise Refused(f"a new block made in round {block.header.origin_round}, not {message.round}")
        held = height.blocks.get(block_hash) or place.validate(block_hash, block, message.block)
    except Refused:
        height.proposals[message.round] = None
        raise
    height.hold(held)
    height.accept(message, block_hash)


def vote(height: Height, sender: bytes, message: Vote) -> None:
    """PREPARE and COMMIT (rules 4, 5 and 9)."""
    index, kind, round = _author(height, sender, message.epoch, message.index), message.kind, message.round
    if not height.place.table[index].stake or not -BEHIND <= round - height.round <= AHEAD:
        return
    tally = height.prepares if kind is Kind.PREPARE else height.commits
    before = tally.voted(round, index)
    if before is not None:
        if before != message.block_hash and index not in height.guilty:
            _check(height, index, kind, round, message.block_hash, message.signature)
        return
    if tally.done(round):
        return
    _check(height, index, kind, round, message.block_hash, message.signature)
    height.arm()
    height.count(kind, round, index, message.block_hash, message.signature)


def timeout(height: Height, sender: bytes, message: Timeout) -> None:
    """TIMEOUT (rules 7, 8 and 9)."""
    index = _author(height, sender, message.epoch, message.index)
    if not height.place.table[index].stake or message.round < height.round:
        return
    if not -1 <= message.high_round <= message.round:
        raise Refused(f"high round {message.high_round} in a TIMEOUT of round {message.round}")
    before = height.timeouts.said(message.round, index)
    if before == message.high_round or (before is not None and index in height.guilty):
        return
    body = timeout_body(message.high_round)
    if before is not None:
        _check(height, index, Kind.TIMEOUT, message.round, body, message.signature)
        return
    ended = _ended(height, message.round, message.timeout) if message.round > height.round else None
    prepared = _prepared(height, message.high_round, message.prepared)
    _check(height, index, Kind.TIMEOUT, message.round, body, message.signature)
    if ended is not None:
        _enter(height, ended, prepared)
    elif prepared is not None:
        height.learn(prepared)
    height.arm()
    if message.round == height.round:
        height.count_timeout(message.round, index, message.high_round, message.signature)


def _named(
    height: Height, ended: TimeoutCertificate, prepared: QuorumCertificate | None
) -> QuorumCertificate | None:
    """The prepare certificate of the round that ``ended`` names, if it is at hand."""
    if prepared is not None and prepared.round == ended.high_round:
        return prepared
    return height.certificates.get(ended.high_round)


def new_round(height: Height, message: NewRound) -> None:
    """A timeout certificate on its own (rule 8)."""
    if message.timeout.round < height.round:
        return
    ended = _ended(height, message.timeout.round + 1, message.timeout)
    _enter(height, ended, _prepared(height, ended.high_round, message.prepared))


def body(height: Height, message: BlockBody) -> None:
    """A block that was asked for."""
    block_hash, block = height.place.parse(message.block)
    if block_hash not in height.wanted:
        return
    try:
        held = height.place.validate(block_hash, block, message.block)
    except Refused as error:
        raise Impossible(f"a quorum signed block {block_hash.hex()[:16]}, but it is {error}") from None
    height.hold(held)
    height.progress()


def decision(height: Height, message: Decision) -> None:
    """A decided block with its certificate (rules 5 and 10)."""
    block_hash, block = height.place.parse(message.block)
    if message.commit.block_hash != block_hash:
        raise Refused("a decision whose certificate is of another block")
    _learn(height, message.commit, Kind.COMMIT)
    if block_hash not in height.blocks:
        try:
            height.hold(height.place.validate(block_hash, block, message.block))
        except Refused as error:
            raise Impossible(f"a quorum committed block {block_hash.hex()[:16]}, but it is {error}") from None
    height.decide(message.commit)
