"""Scenarios 23 to 33: members that change, proofs of guilt, wrong bytes and extreme sizes."""

from __future__ import annotations

import random
from functools import partial

import pytest

from pydec.consensus.effects import Denied
from pydec.consensus.messages import Transaction, Vote, decode, encode
from pydec.consensus.signed import Kind
from pydec.consensus.simulator import adversaries
from pydec.consensus.simulator.campaign import STYLES, build, play
from pydec.consensus.simulator.network import Network, groups
from pydec.consensus.simulator.oracles import Violation
from pydec.consensus.simulator.scenarios import agree
from pydec.consensus.simulator.state import note, set_stake
from pydec.consensus.simulator.world import CHAIN_ID, World
from pydec.consensus.validators import Validator
from tests.consensus.plots import everywhere, listen, replica_of


def test_23_messages_of_other_chains_epochs_and_heights_change_nothing():
    world = World([1] * 4, 0)
    kept = listen(world)
    agree(world)
    joined = Validator(world.keys.signer("newcomer").public, world.keys.signer("newcomer").public, 1)
    world.submit(0, set_stake(joined))
    world.run(world.now + 3)
    assert replica_of(world.places[0]).state.table.epoch == 1
    before = [replica_of(place).state for place in world.places]
    for place, target, data in kept:
        replica = replica_of(world.places[target])
        if not isinstance(decode(data, CHAIN_ID), Transaction):
            replica.receive(place.node_id, data)
        other = encode(decode(data, CHAIN_ID), b"other chain" * 3)
        assert [type(effect).__name__ for effect in replica.receive(place.node_id, other)] == ["Report"]
    assert [replica_of(place).state for place in world.places] == before
    agree(world, at=world.now, start=False)


def test_24_stake_changes_joins_and_leaves_while_the_network_is_cut():
    for seed in range(6):
        cut = groups(0.4, [[0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1]])
        world = World([3, 3, 3, 3, 1], seed, Network(cut=cut, loss=0.1, stable_s=4.0))
        table = world.genesis.table
        changes = [
            Validator(table[4].node_id, table[4].key, 0),  # one leaves
            Validator(table[3].node_id, table[3].key, 4),
            Validator(table[0].node_id, table[0].key, 2),  # the leader of round 0 has less
            Validator(table[4].node_id, table[4].key, 2),  # and it comes back
        ]
        for number, change in enumerate(changes):
            world.at(0.2 + 0.9 * number, partial(world.submit, 1, set_stake(change)))
        agree(world, at=4.1, during=range(4))
        assert max(world.watch.tables) >= 1


def test_24_a_leader_removed_by_its_own_block_follows_on():
    world = World([1] * 5, 0)
    leader = world.genesis.table[world.genesis.leader]
    world.start()
    world.run(0.2)
    world.submit(world.genesis.leader, set_stake(Validator(leader.node_id, leader.key, 0)))
    world.run(2.0)
    assert replica_of(world.places[0]).state.table.index(leader.node_id) is None
    agree(world, at=2.0, start=False)


def test_25_a_joiner_follows_from_the_genesis_while_heights_advance_and_peers_lie():
    world = World([1] * 4 + [0], 5)
    world.corrupt(3, adversaries.forges_certificates(world))
    joiner = world.places[4]
    for place in world.places[:4]:
        world.boot(place)
    for number in range(40):
        world.submit(0, note(number))
        world.run(world.now + 0.2)
    assert max(world.heights()) > 20
    world.boot(joiner)
    for number in range(40, 50):
        world.submit(0, note(number))
        world.run(world.now + 0.2)
    world.gossip_heads()
    assert world.run(world.now + 20, everywhere(world, 49))


def test_26_29_two_processes_with_one_key_are_found_out_and_removed_once():
    removed = 0
    for seed in range(6):
        world = World([1] * 5, seed, Network(delay_s=(0.001, 0.05)), places=[0, 1, 2, 3, 4, 4])
        world.corrupt(4)
        world.start()
        world.run(0.2)
        for number in range(20):
            world.submit(number % 6, note(number))
            world.run(world.now + 0.01)
        world.run(world.now + 3)
        state = replica_of(world.places[0]).state
        assert len(state.punished) <= 1
        removed += state.table.index(world.nodes[4]) is None
        assert set(world.watch.accused) <= {world.nodes[4]}
    assert removed


@pytest.mark.parametrize("style", ["twins", "mutations", "targeted"])
def test_28_beyond_the_budget_every_disagreement_names_a_third_of_the_stake(style):
    disagreements = 0
    for seed in range(40 if style == "twins" else 15):
        world = build(seed, 4, style, faulty=2)
        world.watch.may_disagree = True
        try:
            play(world, patience_s=5.0)
        except Violation as violation:
            if "no agreement" not in str(violation) and "no transaction" not in str(violation):
                raise
        if world.watch.disagreements:
            disagreements += 1
            assert world.genesis.table.blocking(world.watch.blamed(world.genesis.table))
        assert not set(world.watch.accused) & world.watch.honest
    assert disagreements or style != "twins"  # so that the test is known to see some


def test_31_any_bytes_to_a_running_replica_are_at_most_a_report():
    world = World([1] * 4, 0)
    kept = listen(world)
    agree(world)
    draw, replica = random.Random(31), replica_of(world.places[0])
    for _ in range(3000):
        data = bytearray(draw.choice(kept)[2])
        for _ in range(draw.randrange(4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        cut = draw.randrange(len(data) + 1) if draw.random() < 0.3 else len(data)
        replica.receive(draw.choice(world.nodes), bytes(data[:cut]))
    agree(world, at=world.now, start=False)


def test_32_a_full_block_and_one_that_is_too_large():
    world = World([1] * 4, 0, Network(delay_s=(0.001, 0.002)))
    world.start()
    world.run(0.2)
    room = 1 << 20
    for number, padding in enumerate((300_000, 400_000, 500_000, 600_000, 700_000)):
        assert world.submit(number % 4, note(number, padding))
    assert not world.submit(0, note(9, room))
    assert world.run(60.0, lambda: world.settled([note(k, 300_000 + 100_000 * k) for k in range(5)]))


def test_33_stakes_whose_sum_is_two_to_the_61():
    agree(World([1 << 59] * 4))
    agree(World([(1 << 61) // 3 - 1, 1 << 60, (1 << 61) // 3 - 1, 1]))


def test_27_every_style_keeps_the_honest_out_of_the_dock_and_the_same_seed_is_the_same_run():
    for style in STYLES:
        first, second = (play(build(11, 4, style)).world for _ in range(2))
        assert not set(first.watch.accused) & first.watch.honest
        assert first.commits == second.commits
        assert first.watch.heads == second.watch.heads


def test_a_vote_of_a_removed_key_counts_for_nothing():
    world = World([1] * 4, 0)
    agree(world)
    gone = world.genesis.table[3]
    world.submit(0, set_stake(Validator(gone.node_id, gone.key, 0)))
    world.run(world.now + 2)
    replica = replica_of(world.places[0])
    here = replica.height.place
    vote = Vote(Kind.PREPARE, here.table.epoch, here.height, 0, bytes(32), 3, bytes(64))
    signed = adversaries.resign(world.keys.of(gone.node_id), vote)
    (denied,) = replica.receive(gone.node_id, encode(signed, CHAIN_ID))
    assert isinstance(denied, Denied)
    assert "may not vote and propose" in str(denied.error)
