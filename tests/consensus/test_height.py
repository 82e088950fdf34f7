"""What may be signed when: the truth table of rules 2 to 8, one validator against hand-made messages."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pydec.consensus.certificate import QuorumCertificate, TimeoutCertificate
from pydec.consensus.effects import Broadcast, Persist, Report, SetTimer, Timer
from pydec.consensus.messages import (
    BlockBody,
    Decision,
    NewRound,
    Proposal,
    Timeout,
    Transaction,
    Vote,
    decode,
    encode,
)
from pydec.consensus.signed import Kind
from pydec.consensus.simulator.adversaries import resign
from pydec.consensus.simulator.state import EVIDENCE, note
from pydec.consensus.simulator.world import CHAIN_ID, World
from pydec.consensus.storage import Restored
from tests.consensus.plots import replica_of

ME = 3


def signed(signer, message) -> Any:
    return resign(signer, message)


def read(data) -> Any:
    return decode(data, CHAIN_ID)


class Desk:
    """Validator 3 of four, and the keys of the others. Leaders: 0 in round 0, then 1, 2, 3."""

    def __init__(self):
        self.world = World([1] * 4)
        self.world.boot(self.world.places[ME])
        self.replica = replica_of(self.world.places[ME])
        self.place: Any = self.replica.height.place
        assert [self.place.leader(round) for round in range(4)] == [0, 1, 2, 3]
        self.block = self.place.make(0, (note(1),))
        self.other = self.place.make(1, (note(2),))
        self.record: bytes | None = None
        self.accusations: list[bytes] = []

    def give(self, author, message):
        """What the validator signs in answer, as (type, round); or the reason why it refuses."""
        message = signed(self.world.keys.of(self.world.nodes[author]), message)
        return self.hear(author, message)

    def hear(self, author, message):
        """What the validator signs in answer to a message as it is."""
        return self.see(self.replica.receive(self.world.nodes[author], encode(message, CHAIN_ID)))

    def see(self, effects):
        said = []
        for effect in effects:
            if isinstance(effect, Persist):
                self.record = effect.record
            if isinstance(effect, Report):
                return effect.reason
            if isinstance(effect, Broadcast):
                message = read(effect.data)
                if isinstance(message, Transaction):
                    self.accusations.append(message.data)
                    continue
                assert self.record is not None
                assert effect.data in self.record  # persisted before
                if isinstance(message, Vote):
                    said.append((message.kind.name, message.round))
                else:
                    said.append((type(message).__name__.upper(), message.round))
        return said

    def propose(self, author, held, round=0, ended=None, prepared=None):
        return self.give(author, Proposal(0, 1, round, held.encoded, ended, prepared, bytes(64)))

    def vote(self, author, kind, held, round=0):
        return self.give(author, Vote(kind, 0, 1, round, held.hash, author, bytes(64)))

    def time_out(self, author, round=0, high=-1, prepared=None, ended=None):
        return self.give(author, Timeout(0, 1, round, high, author, bytes(64), prepared, ended))

    def expire(self):
        return self.see(self.replica.timer(Timer.ROUND))

    def prepared(self, held, round=0):
        """The prepare certificate that the others make."""
        votes = {}
        for index in range(3):
            vote = Vote(Kind.PREPARE, 0, 1, round, held.hash, index, bytes(64))
            votes[index] = signed(self.world.keys.of(self.world.nodes[index]), vote).signature
        return QuorumCertificate.of(Kind.PREPARE, self.place.table, 1, round, held.hash, votes)

    def ended(self, round=0, high=-1):
        """The timeout certificate that the others make."""
        votes = []
        for index in range(3):
            timeout = Timeout(0, 1, round, high, index, bytes(64), None, None)
            made = signed(self.world.keys.of(self.world.nodes[index]), timeout)
            votes.append((index, high, made.signature))
        return TimeoutCertificate(0, 1, round, tuple(votes))


@pytest.fixture
def desk():
    return Desk()


def test_a_valid_proposal_is_prepared_once(desk):
    assert desk.propose(0, desk.block) == [("PREPARE", 0)]
    assert desk.propose(0, desk.block) == []
    for number in (8, 9):  # more of them are evidence, once, and no more
        assert desk.propose(0, desk.place.make(0, (note(number),))) == []
        assert len(desk.accusations) == 1
    assert desk.accusations[0].startswith(EVIDENCE + desk.world.nodes[0])


def test_a_prepare_quorum_is_committed_once(desk):
    desk.propose(0, desk.block)
    assert desk.vote(0, Kind.PREPARE, desk.block) == []
    assert desk.vote(1, Kind.PREPARE, desk.block) == [("COMMIT", 0)]
    assert desk.vote(2, Kind.PREPARE, desk.block) == []


def test_a_commit_quorum_decides_without_having_voted(desk):
    desk.propose(0, desk.block)
    desk.expire()
    for author in range(3):
        desk.vote(author, Kind.COMMIT, desk.block)
    assert desk.replica.state.height == 1


def test_nothing_is_signed_for_a_round_that_was_given_up(desk):
    desk.propose(0, desk.block)
    assert desk.expire() == [("TIMEOUT", 0)]
    assert desk.vote(0, Kind.PREPARE, desk.block) == []
    assert desk.vote(1, Kind.PREPARE, desk.block) == []  # the quorum is there, the COMMIT is not
    assert desk.expire() == [("TIMEOUT", 0)]  # the same bytes again: see the record


def test_a_timeout_names_what_was_prepared(desk):
    desk.propose(0, desk.block)
    for author in (0, 1):
        desk.vote(author, Kind.PREPARE, desk.block)
    desk.expire()
    record = desk.replica.height.record
    assert read(record.timeout).high_round == 0
    assert read(record.timeout).prepared.block_hash == desk.block.hash


def test_a_third_of_the_stake_takes_others_along(desk):
    assert desk.time_out(0) == []
    assert desk.time_out(1) == [("TIMEOUT", 0)]  # and its own completes the quorum
    assert desk.replica.height.round == 1


def test_round_0_needs_no_certificate_and_takes_none(desk):
    assert "round 0 with certificates" in desk.propose(0, desk.block, 0, desk.ended())


@pytest.mark.parametrize(
    ("ended", "prepared", "answer"),
    [
        (None, None, "without the timeout certificate"),
        ("of another round", None, "without the timeout certificate"),
        ("nothing prepared", None, [("PREPARE", 1)]),
        ("nothing prepared", "round 0", "where -1 is the high round"),
        ("round 0 prepared", None, "without its certificate"),
        ("round 0 prepared", "round 0", "another block than"),
        ("a bad signature", None, "did not sign"),
    ],
)
def test_a_new_block_in_a_later_round_must_be_justified(desk, ended, prepared, answer):
    certificates = {
        None: None,
        "of another round": desk.ended(1),
        "nothing prepared": desk.ended(),
        "round 0 prepared": desk.ended(high=0),
        "a bad signature": dataclasses.replace(desk.ended(), votes=desk.ended(1).votes),
    }
    shown = desk.prepared(desk.block) if prepared else None
    said = desk.propose(1, desk.other, 1, certificates[ended], shown)
    assert said == answer if isinstance(answer, list) else answer in said


def test_what_was_prepared_is_prepared_again_in_a_later_round_even_by_those_that_never_saw_it(desk):
    """No comparison with the own highest certificate, and the first maker stays in the header."""
    assert desk.propose(1, desk.block, 1, desk.ended(high=0), desk.prepared(desk.block)) == [("PREPARE", 1)]


def test_an_own_higher_certificate_does_not_stand_in_the_way(desk):
    desk.propose(0, desk.block)
    for author in (0, 1):
        desk.vote(author, Kind.PREPARE, desk.block)
    # A quorum without this node knew of nothing: its block is justified, and liveness needs this vote.
    assert desk.propose(1, desk.other, 1, desk.ended(high=-1)) == [("PREPARE", 1)]


@pytest.mark.parametrize("author", [1, 2])
def test_only_the_leader_proposes(desk, author):
    assert "does not lead" in desk.propose(author, desk.block)


def test_a_block_made_for_another_round_is_no_new_block(desk):
    assert "made in round 0, not 1" in desk.propose(1, desk.block, 1, desk.ended())


def test_votes_far_ahead_wait_for_nothing(desk):
    desk.propose(0, desk.block)
    before = desk.replica.sizes()["votes"]
    assert desk.vote(0, Kind.PREPARE, desk.block, round=9) == []
    assert desk.replica.sizes()["votes"] == before
    assert desk.vote(0, Kind.PREPARE, desk.block, round=8) == []
    assert desk.replica.sizes()["votes"] == before + 1


def test_a_timeout_of_a_later_round_brings_its_certificate(desk):
    assert "without the timeout certificate" in desk.time_out(0, round=1)
    assert desk.time_out(0, round=1, ended=desk.ended()) == []
    assert desk.replica.height.round == 1


def test_the_leader_of_a_later_round_proposes_what_was_prepared(desk):
    for round in (0, 1):
        message = NewRound(1, desk.ended(round, high=-1), None)
        desk.replica.receive(desk.world.nodes[0], encode(message, CHAIN_ID))
    desk.propose(0, desk.block)  # too late for a vote
    message = NewRound(1, desk.ended(2, high=0), desk.prepared(desk.block))
    effects = desk.replica.receive(desk.world.nodes[0], encode(message, CHAIN_ID))
    # It does not hold the block, so it asks the signers before it leads round 3.
    assert desk.replica.height.round == 3
    assert any(isinstance(effect, SetTimer) and effect.timer is Timer.FETCH for effect in effects)
    body = encode(BlockBody(1, desk.block.encoded), CHAIN_ID)
    said = desk.see(desk.replica.receive(desk.world.nodes[0], body))
    assert said == [("PROPOSAL", 3), ("PREPARE", 3)]


def test_a_restart_says_the_same_and_nothing_else(desk):
    desk.propose(0, desk.block)
    for author in (0, 1):
        desk.vote(author, Kind.PREPARE, desk.block)
    desk.expire()
    record, messages = desk.record, desk.replica.height.record.messages()
    desk.world.crash(desk.world.places[ME])
    desk.world.places[ME].storage.persist(record)
    again = Desk()
    effects = again.replica.start(Restored(record))
    assert [effect.data for effect in effects if isinstance(effect, Broadcast)][: len(messages)] == messages
    assert again.replica.height.record.timed_out == 0
    again.record = record
    other = again.place.make(0, (note(5),))
    assert again.propose(0, other) == []
    assert again.vote(2, Kind.PREPARE, again.block) == []


def test_a_right_header_over_other_transactions_is_refused_and_its_sender_named(desk):
    """It once stopped the node, as if the quorum had signed nonsense (seed 10053 of the mutations)."""
    desk.hear(0, NewRound(1, desk.ended(high=0), desk.prepared(desk.block)))
    for author in range(3):
        desk.vote(author, Kind.COMMIT, desk.block)
    forged = dataclasses.replace(desk.block.block, transactions=(note(7),)).encode()
    commit = QuorumCertificate.of(Kind.COMMIT, desk.place.table, 1, 0, desk.block.hash, {})
    for message in (BlockBody(1, forged), Decision(1, commit, forged)):
        assert "not its header's" in desk.hear(1, message)
    assert desk.replica.halted is None
    desk.hear(2, BlockBody(1, desk.block.encoded))
    assert desk.replica.state.height == 1
