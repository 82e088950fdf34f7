"""The specification's list of scenarios, each where it hurts; ``test_campaign`` mixes them at random.

Numbers in names are the list's.
"""

from __future__ import annotations

from functools import partial

import pytest

from pydec.consensus.messages import Vote
from pydec.consensus.simulator import adversaries, scenarios
from pydec.consensus.simulator.campaign import build, play
from pydec.consensus.simulator.network import Network, groups, one_way, ring
from pydec.consensus.simulator.scenarios import agree, hops
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import World
from tests.consensus.plots import everywhere, overhear, replica_of

SIZES = [1, 2, 3, 4, 5, 7, 10, 16, 31]


def skewed(size):
    """One node just under a third of all the stake."""
    others = [7 + 3 * k for k in range(size - 1)]
    return [*others, (sum(others) - 1) // 2] if size > 3 else [1] * size


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stakes", [lambda size: [1] * size, skewed])
def test_30_idle_then_three_message_delays_whoever_submits(size, stakes):
    for submitter in {0, size // 2, size - 1}:
        taken = hops(stakes(size), submitter)
        assert len(taken) == size
        assert max(taken) <= 4.0  # one to bring the transaction to the leader, three to agree


@pytest.mark.parametrize("size", SIZES)
def test_three_message_delays_from_the_leader(size):
    """Two at the leader and at tables whose first votes are a quorum at once; never more than three."""
    leader = World([1] * size).genesis.leader
    taken = hops([1] * size, leader)
    assert len(taken) == size
    assert max(taken) <= 3.0
    assert size < 3 or min(taken) == 3.0


@pytest.mark.parametrize("size", [4, 5, 7, 10, 16, 31])
def test_1_2_random_order_and_every_message_twice(size):
    world = World([1] * size, size, Network(delay_s=(0.0, 0.05), repeat=1.0, stable_s=1e9))
    agree(world, during=range(size))


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
def test_3_loss(loss):
    for seed in range(5):
        agree(World([1] * 4, seed, Network(loss=loss, stable_s=5.0)), at=5.1, during=range(4))


CUTS = {
    "2/2": groups(1e9, [[0, 0, 1, 1]]),
    "3/1": groups(1e9, [[0, 0, 0, 1]]),
    "ring": ring(5),
    "rotating, half a timer": groups(0.1, [[0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 1, 0]]),
    "rotating, four timers": groups(0.8, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
    "one way": one_way(frozenset({(0, 1), (1, 2), (2, 3), (3, 0)})),
    "deaf leader": one_way(frozenset({(1, 0), (2, 0), (3, 0)})),
}


@pytest.mark.parametrize("name", CUTS)
def test_4_5_cuts_that_heal(name):
    size = 5 if name == "ring" else 4
    for seed in range(3):
        agree(World([1] * size, seed, Network(cut=CUTS[name], stable_s=5.0)), at=5.1, during=range(size))


@pytest.mark.parametrize("down_s", [0.05, 3.0, None])
def test_6_the_leader_crashes_at_each_step(down_s):
    """Before and after each write and each single message of its proposal and its votes."""
    for step in range(16):
        world = World([1] * 4, step)
        leader = world.places[world.genesis.leader]
        leader.crash_after, leader.restart_after = step + 3, down_s  # its first three messages are heads
        world.start()
        world.run(0.1)
        world.submit(leader.number, note(1))
        world.run(4.0)
        leader.crash_after = None
        others = [place for place in world.places if place is not leader]
        world.submit(others[0].number, note(2))
        assert world.run(30.0, everywhere(world, 2, places=others))
        if down_s is not None:
            world.gossip_heads()
            assert world.run(40.0, everywhere(world, 2))


def test_one_crashed_leader_costs_at_most_one_timer():
    for size in (4, 7, 16):
        pace_s = 1.0
        world = World([1] * size, 0, Network(delay_s=(0.001, 0.002)), pace_s=pace_s)
        world.start()
        world.run(0.1)
        leader = world.genesis.leader
        world.crash(world.places[leader])
        world.watch.honest.discard(world.nodes[leader])
        world.places[leader].honest = False
        began = world.now
        world.submit((leader + 1) % size, note(1))
        assert world.run(60.0, everywhere(world, 1))
        assert world.now - began < pace_s + 0.05
        # The leader did not sign, so no later height starts with it while it is away.
        for number in range(2, 2 + 2 * size):
            world.submit((leader + 1) % size, note(number))
            assert world.run(world.now + 60, everywhere(world, number))
        assert sum(round > 0 for _, _, height, round in world.commits if height > 2) == 0


@pytest.mark.parametrize("size", [4, 7])
def test_7_8_crashes_of_some_and_of_all_at_any_time(size):
    for seed in range(12):
        world = World([1] * size, seed, Network(delay_s=(0.001, 0.02)))
        world.start()
        for number in range(size):
            world.at(0.1, partial(world.submit, number, note(number)))
        victims = world.places if seed % 2 else world.places[: (size - 1) // 3]
        for place in victims:
            world.at(0.1 + seed * 0.005, partial(world.crash, place, 0.5))
        agree(world, at=2.0, start=False)


def test_9_a_lost_or_stale_safety_record_bars_votes_until_the_others_have_moved_on():
    world = World([1] * 4, 3)
    agree(world)
    victim = world.places[2]
    world.crash(victim)
    before = max(world.heights())
    victim.sound = False
    silent_until = before + 1
    said = overhear(victim)
    world.boot(victim)
    for number in range(30_000, 30_006):
        world.submit(0, note(number))
        world.run(world.now + 1.0)
    signed = [message.height for message in said if isinstance(message, Vote)]
    assert signed
    assert min(signed) > silent_until
    assert world.settled([note(30_005)])


def test_9_an_older_ledger_than_the_safety_record_bars_votes_below_it():
    world = World([1] * 4)
    agree(world)
    victim = world.places[1]
    world.crash(victim)
    record_height = victim.storage.head
    del victim.storage._blocks[1:]
    victim.storage.sync()
    said = overhear(victim)
    world.boot(victim)
    world.submit(0, note(77))
    world.gossip_heads()
    assert world.run(world.now + 20, everywhere(world, 77))
    assert all(message.height >= record_height for message in said if isinstance(message, Vote))


@pytest.mark.parametrize("name", adversaries.TARGETED)
@pytest.mark.parametrize("size", [4, 7])
def test_10_to_20_each_adversary_as_the_first_leaders(name, size):
    """As many liars as the table stands, the first leaders among them, in a network that loses messages."""
    for seed in range(3):
        world = World([1] * size, seed, Network(loss=0.1, stable_s=4.0))
        for node in range((size - 1) // 3):
            world.corrupt(node, adversaries.TARGETED[name](world))
        agree(world, at=4.1, during=range(size))


@pytest.mark.parametrize("size", [4, 7, 10])
def test_13_twins(size):
    for seed in range(60 // size):
        play(build(seed, size, "twins"))


def test_14_16_a_hidden_commit_is_found_again():
    for seed in range(10):
        scenarios.hidden_commit(seed)
        scenarios.hidden_commit(seed, adversary=False)


def test_18_silent_leaders_in_a_row_cost_a_timer_each():
    world = World([1] * 7, 0, pace_s=0.2)
    for node in (0, 1):
        world.corrupt(node, adversaries.silent_leader(world))
    agree(world)


def test_19_floods_are_bounded():
    world = World([1] * 4, 1)
    world.corrupt(3, adversaries.floods(world))
    agree(world, during=range(3))
    for number in range(50):
        world.submit(0, note(number))
        world.run(world.now + 0.3)
    sizes = [replica_of(place).sizes() for place in world.honest()]
    for one in sizes:
        assert one["early"] <= 8 * (4 + 64)
        assert one["votes"] <= 3 * 4 * 80
        assert one["claims"] <= 3 * 1024


def test_20_21_clocks_that_run_ten_times_too_fast_or_slow_and_jump():
    world = World([1] * 4, 2, Network(loss=0.2, stable_s=4.0))
    for place, clock in zip(world.places, (0.1, 1.0, 10.0, 1.0), strict=True):
        place.clock = clock
    draw = world.draw

    def jump():
        for place in world.places:
            place.clock = draw.choice((0.1, 1.0, 10.0))
            replica_of(place).measured(draw.choice((-5.0, 1e300, float("nan"), 0.01)))

    for time in (1.0, 2.0, 3.0):
        world.at(time, jump)
    agree(world, at=4.1, during=range(4), patience_s=600)


def test_22_a_node_that_is_a_hundred_times_slower_delays_nobody():
    world = World([1] * 4, 0, Network(delay_s=(0.001, 0.002), slow=((2, 100.0),)), pace_s=0.5)
    agree(world)
    world.run(world.now + 5)
    quick = [world.places[k] for k in (0, 1, 3)]
    for number in range(8):
        began = world.now
        world.submit(0, note(number))
        assert world.run(
            began + 5,
            everywhere(world, number, places=quick),
        )
