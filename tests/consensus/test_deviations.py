"""Where the replica does not do what the specification says, and what doing it would cost.

Each test runs the specified rule beside the one in use; were the specification right, it would fail.
"""

from __future__ import annotations

import pytest

from pydec.consensus.effects import Report, Timer
from pydec.consensus.height import Height
from pydec.consensus.messages import Decision, Timeout, decode
from pydec.consensus.replica import Replica
from pydec.consensus.signed import Kind
from pydec.consensus.simulator.network import Network
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import CHAIN_ID, World

from .plots import everywhere, listen, replica_of
from .test_height import Desk


class AnswersVotes(Replica):
    """Rule 10 to the letter: whatever comes for a decided height is answered with its DECISION."""

    def _help(self, sender, message):
        if self.follow.may_answer(sender):
            self.follow.serve(sender, message.height, self.state.height)


def sent_bytes(size: int, replica_type: type[Replica]) -> tuple[int, int]:
    """Bytes of decisions, and of everything, that one commit of one note costs when nothing goes wrong."""
    world = World([1] * size, 1, Network(delay_s=(0.001, 0.02)), pace_s=5.0)
    for place in world.places:
        place.replica_type = replica_type
    world.start()
    world.run(1.0)
    kept = listen(world)
    world.submit(0, note(1))
    assert world.run(world.now + 20.0, everywhere(world, 1))
    world.run(world.now + 20.0)
    decisions = [data for *_, data in kept if isinstance(decode(data, CHAIN_ID), Decision)]
    return sum(map(len, decisions)), sum(len(data) for *_, data in kept)


@pytest.mark.parametrize(("size", "share"), [(4, 0.3), (7, 0.6), (16, 1.0)])
def test_answering_late_votes_would_send_decisions_to_nodes_that_need_none(size, share):
    """A third of all votes come after a quorum of them, and a DECISION is a whole block: the cost of a commit
    would grow with size and block, for nodes that are about to see the same quorum.
    """
    needless, _ = sent_bytes(size, AnswersVotes)
    nothing, all_bytes = sent_bytes(size, Replica)
    assert nothing == 0
    assert needless > share * all_bytes


def test_who_missed_every_commit_hears_of_the_decision_by_its_own_timeout():
    """What the rule is for: the vote of a node that is stuck is not answered, its TIMEOUT is."""
    world = World([1] * 4, 1, Network(delay_s=(0.001, 0.002)), pace_s=0.5)
    stuck = 3
    for place in world.places:
        if place.number != stuck:
            place.outgoing = lambda place, target, data: (
                ()
                if target == stuck and getattr(decode(data, CHAIN_ID), "kind", None) is Kind.COMMIT
                else (data,)
            )
    world.start()
    world.run(1.0)
    world.submit(0, note(1))
    began_s = world.now
    assert world.run(began_s + 20.0, everywhere(world, 1))
    assert world.now - began_s < 2 * 0.5  # one timer, not several


class NamesLaterRounds(Height):
    """Rules 4 and 6 to the letter: the highest known prepare certificate is named, whatever its round."""

    def _raise_high(self):
        known = [round for round in self.certificates if round > self.record.high_round]
        if known:
            self.record.high = self.certificates[max(known)]


class NamesLater(Replica):
    height_type = NamesLaterRounds


def behind(replica_type: type[Replica]) -> tuple[Desk, Replica]:
    """Validator 3 in round 0, which has heard a quorum of PREPAREs of round 2; and a judge."""
    desk = Desk()
    place = desk.world.places[3]
    place.replica_type = replica_type
    desk.world.boot(place)
    desk.replica = replica_of(place)
    for author in range(3):
        desk.vote(author, Kind.PREPARE, desk.block, 2)
    assert 2 in desk.replica.height.certificates
    assert desk.replica.height.round == 0
    desk.world.boot(desk.world.places[0])
    return desk, replica_of(desk.world.places[0])


def test_a_timeout_that_names_a_later_round_would_be_refused_by_all():
    """Section 2 refuses a timeout of round r that knows of more than r, so rule 6 must not sign one: the
    stake of every node that is behind would be missing in the certificate that it waits for.
    """
    desk, judge = behind(NamesLater)
    desk.expire()
    (report,) = judge.receive(desk.world.nodes[3], desk.replica.height.record.timeout or b"")
    assert isinstance(report, Report)
    assert "high round 2 in a TIMEOUT of round 0" in report.reason
    assert judge.height.timeouts.weight(0) == 0


def test_a_timeout_of_a_node_that_is_behind_counts_and_its_knowledge_comes_with_the_round():
    desk, judge = behind(Replica)
    desk.propose(0, desk.block)
    assert desk.expire() == [("TIMEOUT", 0)]
    record = desk.replica.height.record
    timeout = decode(record.timeout or b"", CHAIN_ID)
    assert isinstance(timeout, Timeout)
    assert timeout.high_round == -1
    effects = judge.receive(desk.world.nodes[3], record.timeout or b"")
    assert not any(isinstance(effect, Report) for effect in effects)
    assert judge.height.timeouts.weight(0) == 1
    desk.time_out(0, 2, 2, desk.prepared(desk.block, 2), desk.ended(1))  # brings it to round 2
    assert desk.replica.height.round == 2
    assert desk.see(desk.replica.timer(Timer.ROUND))
    last = decode(desk.replica.height.record.timeout or b"", CHAIN_ID)
    assert isinstance(last, Timeout)
    assert (last.round, last.high_round) == (2, 2)
