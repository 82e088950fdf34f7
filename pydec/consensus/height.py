"""Deciding one height: what a validator keeps of it, and when it may sign what (rules 1 to 8).

``Height`` acts; ``hearing.Hearing`` checks what arrives and calls it. The rules' numbers are the
specification's. Everything that is signed goes through ``_sign`` after the record that remembers it was
changed, and the outbox persists that record before the first message of the event.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydec.consensus.certificate import QuorumCertificate, TimeoutCertificate
from pydec.consensus.effects import Broadcast, CancelTimer, Outbox, Refused, Send, SetTimer, Started, Timer
from pydec.consensus.evidence import Detector, Evidence
from pydec.consensus.messages import GetBlock, Message, NewRound, Proposal, Timeout, Vote, decode, encode
from pydec.consensus.pacemaker import Pacemaker
from pydec.consensus.place import Held, Place, Select
from pydec.consensus.record import SafetyRecord
from pydec.consensus.signed import Kind, SignedStatement, Signer, signed_bytes, timeout_body
from pydec.consensus.votes import TimeoutTally, VoteTally

AHEAD = 8  # rounds beyond the current one whose votes are counted (rule 9)
BEHIND = 64  # rounds before it whose votes are: a late COMMIT may still decide
_ASKED_AT_ONCE = 3  # signers of a missing block that are asked together


class Height:
    """One height in progress.

    Args:
        place: where it stands.
        index: this node's position in the table, None if it only follows.
        signer: signs its votes; None if it must not (rule 15).
        pace: durations.
        outbox: where effects go.
        select: what the pool offers for a header and a number of bytes.
        record: what a restart found of this height.
    """

    def __init__(
        self,
        place: Place,
        index: int | None,
        signer: Signer | None,
        pace: Pacemaker,
        outbox: Outbox,
        select: Select,
        record: SafetyRecord | None = None,
    ) -> None:
        self.place, self.index, self.signer = place, index, signer if index is not None else None
        self.pace, self.outbox, self._select = pace, outbox, select
        self.record = record or SafetyRecord(place.chain_id, place.table.epoch, place.height)
        self.round = 0
        self.armed = False
        self.decided: tuple[Held, QuorumCertificate] | None = None
        self.commit: QuorumCertificate | None = None
        self.prepares = VoteTally(Kind.PREPARE, place.table, place.height)
        self.commits = VoteTally(Kind.COMMIT, place.table, place.height)
        self.timeouts = TimeoutTally(place.table, place.height)
        self.certificates: dict[int, QuorumCertificate] = {}
        self.blocks: dict[bytes, Held] = {}
        self.proposals: dict[int, bytes | None] = {}  # None: signed by the leader, and not valid
        self.wanted: dict[bytes, list[int]] = {}
        self.detector = Detector()
        self.found: list[tuple[int, Evidence]] = []
        self.guilty: set[int] = set()
        self._others = tuple(v.node_id for i, v in enumerate(place.table.validators) if i != index)

    # ---------------------------------------------------------------- starting

    def resume(self) -> None:
        """After a restart: back to the recorded round, and the same messages again, byte for byte."""
        record = self.record
        for encoded in record.blocks.values():
            try:
                block_hash, block = self.place.parse(encoded)
                self.blocks[block_hash] = self.place.validate(block_hash, block, encoded)
            except Refused:
                continue  # an older block of this height whose parent's certificate is judged elsewhere
        if record.ended is not None:
            self.round = record.ended.round + 1
        for certificate in (record.justification, record.high):
            if certificate is not None:
                self.certificates[certificate.round] = certificate
        if not record.messages() or self.signer is None:
            return
        for message in record.messages():
            self.outbox.rest.append(Broadcast(self._others, message))
            self._recount(decode(message, self.place.chain_id))
        self.arm()
        self.progress()

    def _recount(self, message: Message) -> None:
        assert self.index is not None
        if isinstance(message, Proposal):
            self.proposals[message.round] = self.place.parse(message.block)[0]
        elif isinstance(message, Vote):
            self.count(message.kind, message.round, self.index, message.block_hash, message.signature)
        elif isinstance(message, Timeout):
            self.count_timeout(message.round, self.index, message.high_round, message.signature)

    def wake(self) -> None:
        """Rule 1: there may be work now. Arms the timer if so, and proposes if this node leads."""
        if self.signer is None or self.decided or self.armed:
            return
        if self.round == 0 and self.place.leader(0) == self.index and self.may_sign(self.record.proposed):
            self.progress()  # looks for itself, and arms if it proposes
        elif self.place.select(self.round, self._select):
            self.arm()
            self.progress()

    def arm(self) -> None:
        """Start the round's timer, once: there is work, or somebody else has some."""
        if not self.armed and self.signer is not None and not self.decided:
            self.armed = True
            self._restart_timer()

    def close(self) -> None:
        """The height is over; what it heard stays for a while, its blocks do not."""
        self.blocks.clear()
        if self.armed:
            self.outbox.rest.append(CancelTimer(Timer.ROUND))
        if self.wanted:
            self.outbox.rest.append(CancelTimer(Timer.FETCH))

    def _restart_timer(self) -> None:
        self.outbox.rest.append(SetTimer(Timer.ROUND, self.pace.delay_s(self.round)))

    # ---------------------------------------------------------------- acting

    def progress(self) -> None:
        """Everything that has become possible: propose, prepare, commit, join a timeout."""
        if self.decided or self.signer is None:
            return
        self._propose()
        self._prepare()
        self._vote_commit()
        self._join()

    def may_sign(self, newest: int) -> bool:
        """Whether a vote of the current round may follow one of round ``newest`` and the timeouts so far."""
        return (
            self.signer is not None and max(newest, self.record.timed_out) < self.round and not self.decided
        )

    def _sign(self, kind: Kind, body: bytes) -> bytes:
        assert self.signer is not None
        self.outbox.dirty = True
        where = (self.place.chain_id, self.place.table.epoch, self.place.height, self.round)
        message = signed_bytes(kind, *where, body)
        signature = self.signer.sign(message)
        self.place.verifier.trust(self.signer.public, message, signature)
        return signature

    def _broadcast(self, message: Message) -> bytes:
        data = encode(message, self.place.chain_id)
        if self._others:
            self.outbox.rest.append(Broadcast(self._others, data))
        return data

    def send(self, node: bytes, message: Message) -> None:
        """To one node."""
        self.outbox.rest.append(Send(node, encode(message, self.place.chain_id)))

    def _propose(self) -> None:
        """Rule 2."""
        if not self.may_sign(self.record.proposed) or self.place.leader(self.round) != self.index:
            return
        held = self._what_to_propose()
        if held is None:
            return
        justification = self.record.justification if self.round else None
        signature = self._sign(Kind.PROPOSAL, held.hash)
        ended = self.record.ended if self.round else None
        where = (self.place.table.epoch, self.place.height, self.round)
        proposal = Proposal(*where, held.encoded, ended, justification, signature)
        self.blocks[held.hash] = held
        self.proposals[self.round] = held.hash
        self.record.proposed = self.round
        self.record.proposal = self._broadcast(proposal)
        self.arm()

    def _what_to_propose(self) -> Held | None:
        if self.round == 0:
            transactions = self.place.select(0, self._select)
            return self.place.make(0, transactions) if transactions else None
        ended, justification = self.record.ended, self.record.justification
        if ended is None:
            return None
        if ended.high_round < 0:
            return self.place.make(self.round, self.place.select(self.round, self._select))
        if justification is None:
            return None
        held = self.blocks.get(justification.block_hash)
        if held is None:
            self.fetch(justification.block_hash, justification.signers())
        return held

    def _prepare(self) -> None:
        """Rule 3, its end: the round's proposal is valid and justified. No comparison with ``high``."""
        held = self.blocks.get(self.proposals.get(self.round) or b"")
        if held is None or not self.may_sign(self.record.prepared):
            return
        self.record.keep(held.hash, held.encoded)
        self.record.prepared = self.round
        self.outbox.rest.append(Started(self.place.height, self.round))
        self._vote(Kind.PREPARE, held.hash)

    def _vote_commit(self) -> None:
        """Rule 4."""
        certificate = self.certificates.get(self.round)
        if certificate is None or not self.may_sign(self.record.committed):
            return
        held = self.blocks.get(certificate.block_hash)
        if held is None:
            self.fetch(certificate.block_hash, certificate.signers())
            return
        self.record.keep(held.hash, held.encoded)
        self.record.committed = self.round
        self._vote(Kind.COMMIT, held.hash)

    def _vote(self, kind: Kind, block_hash: bytes) -> None:
        assert self.index is not None
        round = self.round
        signature = self._sign(kind, block_hash)
        where = (self.place.table.epoch, self.place.height, round)
        sent = self._broadcast(Vote(kind, *where, block_hash, self.index, signature))
        if kind is Kind.PREPARE:
            self.record.prepare = sent
        else:
            self.record.commit = sent
        self.count(kind, round, self.index, block_hash, signature)

    def _join(self) -> None:
        """Rule 7: somebody honest has given the round up."""
        if self.record.timed_out < self.round and self.place.table.blocking(self.timeouts.weight(self.round)):
            self.give_up()

    def expire(self) -> None:
        """Rule 6: the round's timer has run out."""
        if self.armed and self.signer is not None and not self.decided:
            self._restart_timer()
            self.give_up()

    def give_up(self) -> None:
        """Sign a TIMEOUT of the round, or send the same one again."""
        assert self.index is not None
        round, record = self.round, self.record
        if record.timed_out >= round:
            if record.timeout is not None:
                self.outbox.rest.append(Broadcast(self._others, record.timeout))
            return
        self.arm()
        high_round = record.high_round
        signature = self._sign(Kind.TIMEOUT, timeout_body(high_round))
        where = (self.place.table.epoch, self.place.height, round)
        timeout = Timeout(*where, high_round, self.index, signature, record.high, record.ended)
        record.timed_out = round
        record.timeout = self._broadcast(timeout)
        self.count_timeout(round, self.index, high_round, signature)

    # ---------------------------------------------------------------- learning

    def count(self, kind: Kind, round: int, index: int, block_hash: bytes, signature: bytes) -> None:
        """Count a verified vote; rules 4 and 5 when it completes a quorum."""
        tally = self.prepares if kind is Kind.PREPARE else self.commits
        certificate = tally.add(round, index, block_hash, signature)
        if certificate is None:
            return
        if kind is Kind.PREPARE:
            self.learn(certificate)
        else:
            self.decide(certificate)

    def count_timeout(self, round: int, index: int, high_round: int, signature: bytes) -> None:
        """Count a verified TIMEOUT; rules 7 and 8."""
        ended = self.timeouts.add(round, index, high_round, signature)
        if ended is not None:
            self.enter(ended, self.certificates.get(ended.high_round))
        else:
            self.progress()

    def accept(self, proposal: Proposal, block_hash: bytes) -> None:
        """The first valid proposal of the current round; its block is held."""
        self.proposals[proposal.round] = block_hash
        if proposal.timeout is not None and self.record.timed_out < self.round:
            # What justifies the vote is kept with it: whoever prepared can show why.
            self.record.ended = proposal.timeout
            self.record.justification = self.certificates.get(proposal.timeout.high_round)
        self.arm()
        self.progress()

    def learn(self, certificate: QuorumCertificate) -> None:
        """A valid prepare certificate of this height."""
        if certificate.round in self.certificates or self.decided:
            return
        self.certificates[certificate.round] = certificate
        self._raise_high()
        self.progress()

    def _raise_high(self) -> None:
        # A TIMEOUT of round r names rounds up to r only; what is known of later ones waits until they come.
        known = [round for round in self.certificates if self.record.high_round < round <= self.round]
        if known:
            self.record.high = self.certificates[max(known)]

    def enter(self, ended: TimeoutCertificate, justification: QuorumCertificate | None) -> None:
        """Rule 8: a valid timeout certificate of the current round or a later one."""
        if ended.round < self.round or self.decided:
            return
        if justification is not None:
            self.certificates.setdefault(justification.round, justification)
        self.round = ended.round + 1
        self.record.ended, self.record.justification = ended, justification
        self._raise_high()
        self._forget()
        (self._restart_timer if self.armed else self.arm)()
        leader, told = self.place.leader(self.round), self.new_round()
        if self.signer is not None and leader != self.index and told is not None:
            self.send(self.place.table[leader].node_id, told)
        self.progress()

    def new_round(self) -> NewRound | None:
        """What tells others of the round; None without what proves it: a TIMEOUT may have led here."""
        ended, proof = self.record.ended, self.record.justification
        if ended is None or (proof is None and ended.high_round >= 0):
            return None
        return NewRound(self.place.height, ended, proof)

    def _forget(self) -> None:
        below = self.round - BEHIND
        for tally in (self.prepares, self.commits, self.timeouts):
            tally.forget(below)
        for kept in (self.certificates, self.proposals):
            for round in [round for round in kept if round < below]:
                del kept[round]
        named = {qc.block_hash for qc in self.certificates.values()} | set(self.record.blocks)
        named |= {block_hash for block_hash in self.proposals.values() if block_hash is not None}
        for block_hash in [block_hash for block_hash in self.blocks if block_hash not in named]:
            del self.blocks[block_hash]

    def decide(self, certificate: QuorumCertificate) -> None:
        """Rule 5: a valid commit certificate of this height, whatever its round."""
        if self.decided:
            return
        self.commit = certificate
        held = self.blocks.get(certificate.block_hash)
        if held is None:
            self.fetch(certificate.block_hash, certificate.signers())
        else:
            self.decided = (held, certificate)

    # ---------------------------------------------------------------- blocks that are missing

    def fetch(self, block_hash: bytes, signers: Iterable[int]) -> None:
        """Ask those that signed for a block; others of them when the timer runs out."""
        if block_hash not in self.wanted:
            self.wanted[block_hash] = [index for index in signers if index != self.index]
            self._ask(block_hash)

    def _ask(self, block_hash: bytes) -> None:
        signers = self.wanted[block_hash]
        for index in signers[:_ASKED_AT_ONCE]:
            self.send(self.place.table[index].node_id, GetBlock(self.place.height, block_hash))
        self.wanted[block_hash] = signers[_ASKED_AT_ONCE:] + signers[:_ASKED_AT_ONCE]
        self.outbox.rest.append(SetTimer(Timer.FETCH, self.pace.base_s))

    def ask_again(self) -> None:
        """The fetch timer has run out."""
        for block_hash in self.wanted:
            self._ask(block_hash)

    def hold(self, held: Held) -> None:
        """A valid block has come."""
        self.blocks.setdefault(held.hash, held)
        if self.wanted.pop(held.hash, None) is not None and not self.wanted:
            self.outbox.rest.append(CancelTimer(Timer.FETCH))
        if self.commit is not None and self.commit.block_hash == held.hash:
            self.decide(self.commit)

    # ---------------------------------------------------------------- evidence

    def observe(self, index: int, statement: SignedStatement) -> None:
        """Look for contradictions in what somebody verifiably signed; one proof of each is enough."""
        if index in self.guilty or index == self.index:
            return
        found = self.detector.observe(self.place.table[index].key, statement)
        if found:
            self.guilty.add(index)
            self.found.append((index, found[0]))

    def sizes(self) -> dict[str, int]:
        """How much is kept, for tests of the bounds."""
        return {
            "votes": len(self.prepares) + len(self.commits) + len(self.timeouts),
            "statements": len(self.detector),
            "blocks": len(self.blocks) + len(self.record.blocks),
            "certificates": len(self.certificates) + len(self.proposals) + len(self.wanted),
        }
