"""One newcomer against peers that say anything; whole joins are in ``test_joining``."""

from __future__ import annotations

import random

import pytest

from pydec.consensus import handover, newcomer, offers
from pydec.consensus.catchup import MOST_CLAIMS
from pydec.consensus.effects import Report, Send
from pydec.consensus.member import Member
from pydec.consensus.messages import Head, encode
from pydec.consensus.newcomer import Newcomer, voted_until
from pydec.consensus.offers import Ask, AskPieces
from pydec.consensus.replica import Replica
from pydec.errors import FrameError

from .test_decoders import mutant
from .test_handover import Giver
from .world import World, genesis, key


def fresh() -> tuple[Replica, Newcomer]:
    """A node at the genesis."""
    start = genesis()
    member = Member(start.chain_id, key("z").public, None)
    replica = Replica(member, start.state(), (start.chain_id, None))
    replica.start()
    return replica, Newcomer(replica)


def boast(replica: Replica, node: bytes, height: int) -> None:
    replica.receive(node, encode(Head(0, height, bytes(32)), replica.member.chain_id))


def sent(done, chain_id: bytes) -> list[tuple[bytes, offers.Message]]:
    return [
        (effect.node, offers.decode(effect.data, chain_id)) for effect in done if isinstance(effect, Send)
    ]


def test_claims_are_bounded_and_silence_costs_a_claim():
    replica, node = fresh()
    asked: set[bytes] = set()
    for number in range(2 * MOST_CLAIMS):
        boast(replica, number.to_bytes(32, "big"), 1 << 60)
        asked |= {target for target, _ in sent(node.tick(0.0), replica.member.chain_id)}
    assert len(node) <= 2 * MOST_CLAIMS + 2
    for second in range(5 * MOST_CLAIMS):
        asked |= {target for target, _ in sent(node.tick(float(10 * second)), replica.member.chain_id)}
        if not node.active:
            break
    assert len(asked) == MOST_CLAIMS
    assert len(node) == 0
    assert not replica.follow.paused


def test_a_node_that_is_near_asks_for_nothing_unless_it_is_stuck():
    replica, node = fresh()
    boast(replica, b"n" * 32, newcomer.FAR - 1)
    assert node.tick(0.0) == node.tick(1.0) == []
    assert sent(node.tick(100.0), replica.member.chain_id) == [(b"n" * 32, Ask(1))]


@pytest.mark.parametrize("seed", range(3))
def test_any_answers_are_dropped_or_reported_and_memory_is_bounded(seed, monkeypatch):
    monkeypatch.setattr(handover, "SPACING", 4)
    monkeypatch.setattr("pydec.consensus.state.streams.PIECE_BYTES", 256)
    giver, draw = Giver(13), random.Random(seed)
    chain_id = giver.world.chain_id
    asks = (Ask(1), Ask(4), AskPieces(12, 0), AskPieces(12, 8), offers.AskProof(5))
    corpus = [offers.encode(message, chain_id) for ask in asks for message in giver.says(ask)]
    replica, node = fresh()
    now_s, reported = 0.0, 0
    for _ in range(400):
        boast(replica, draw.randbytes(32), draw.randrange(1, 1 << 62))
        now_s += draw.random()
        done = node.tick(now_s)
        for target, _ in 8 * sent(done, chain_id):
            try:
                message = offers.decode(mutant(draw, corpus), chain_id)
            except FrameError:
                continue
            if isinstance(message, Ask | AskPieces | offers.AskProof):
                continue
            assert node.receive(now_s, b"nobody was asked", message) == []
            answers = node.receive(now_s, target, message)
            assert all(effect.node == target for effect in answers if isinstance(effect, Report))
            reported += any(isinstance(effect, Report) for effect in answers)
        assert len(node) <= 2 * MOST_CLAIMS + 100
    assert replica.state.height == 0
    assert reported


def test_what_the_chain_shows_of_a_nodes_votes():
    world = World()
    world.absent = {"d"}
    for _ in range(3):
        world.add()
    world.absent = set()
    world.add()
    world.absent = {"c", "d"}
    world.add()
    world.add()
    signers = world.blocks[-1][1].signers()
    assert [voted_until(world.state, signers, key(name).public) for name in "abcdz"] == [6, 6, 4, 4, 0]
