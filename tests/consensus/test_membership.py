"""Coming, going and slashing: what each transaction does, and every reason for which it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydec.consensus.block import NO_HASH
from pydec.consensus.puzzle import MAX_TARGET, Puzzle
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.state import membership
from pydec.consensus.transactions import (
    Beacon,
    Evict,
    Grant,
    Join,
    Key,
    Leave,
    Stake,
    Transfer,
    prove,
)
from pydec.crypto.runkey import certify
from pydec.errors import TransactionError
from tests.consensus.world import BOTH, World, account, genesis, key


def refused(world: World, message: str, *transactions: bytes) -> None:
    before = world.state.root()
    with pytest.raises(TransactionError, match=message):
        world.state.execute(world.header(), transactions)
    assert world.state.root() == before


def names(world: World) -> str:
    return "".join(sorted(world.names[v.node_id] for v in world.state.table.validators))


def test_join_by_stake_takes_effect_at_the_next_height():
    world = World()
    world.run("a", Transfer(key("e").public, 100))
    assert world.state.table.epoch == 0
    world.run("e", Join(BOTH, 80, "at:e"))
    assert (names(world), world.state.table.epoch, world.state.table.total) == ("abcde", 1, 480)
    assert world.state.decided_by.epoch == 0
    assert (world.of("e").balance, world.of("e").stake, world.of("e").joined) == (20, 80, 2)
    assert world.state.table[world.state.leader].node_id != key("e").public  # it observes first
    world.add()
    assert world.state.decided_by.epoch == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (Join(0, 0, ""), "asks to join without a role"),
        (Join(BOTH, 0, ""), "bonds 0; it has a balance of 100 and needs at least 10"),
        (Join(BOTH, 101, ""), "bonds 101; it has a balance of 100"),
        (Join(Role.TRAINER, 10, ""), "bonds 10 but does not join as validator"),
        (
            Join(BOTH | Role.ADMIN, 50, ""),
            "may not join as admin: it needs .* may take trainer, validator, obs",
        ),
        (Join(BOTH, 50, "", nonce=3), "admission is by stake, which takes no puzzle"),
        (Join(BOTH, 50, "", block=bytes([1]) * 32), "admission is by stake, which takes no puzzle"),
        (Join(BOTH, 50, "", b"\0" * 272), "run certificate"),
        (Join(BOTH, 50, "", b"\0"), "has 272 bytes, got 1"),
    ],
)
def test_bad_joins_are_refused(body, message):
    world = World(genesis(rules=Rules(min_stake=10)))
    world.run("a", Transfer(key("e").public, 100))
    refused(world, message, world.tx("e", body))


def test_a_member_joins_once_and_a_stranger_has_no_balance():
    world = World()
    refused(world, "is a member already", world.tx("a", Join(BOTH, 1, "")))
    refused(world, "has a balance of 0 and needs", world.tx("e", Join(BOTH, 5, "")))
    refused(world, "knows no account", world.tx("e", Leave()))


def test_join_by_invitation_brings_the_least_stake():
    world = World(genesis(rules=Rules(admission="invite", min_stake=30)))
    refused(world, "may not join as trainer, validator: .* may take none", world.tx("e", Join(BOTH, 0, "")))
    world.run("a", Grant(key("e").public, int(BOTH)))
    refused(world, "entry by invite brings 30 and no more", world.tx("e", Join(BOTH, 30, "")))
    world.run("e", Join(BOTH, 0, "at:e"))
    assert (world.of("e").stake, world.of("e").entry, world.state.supply.minted) == (30, 30, 30)
    world.run("e", Leave())  # what entry brought is burned again
    assert (world.of("e").locked, world.state.supply.burned, world.of("e").entry) == (0, 30, 0)


def test_entries_stop_before_the_sum_of_stake_overflows():
    world = World(
        genesis(account("a", 15, stake=1 << 61), rules=Rules(admission="invite", min_stake=1 << 61))
    )
    world.run("a", Grant(key("e").public, int(BOTH)))
    refused(world, "an entry of 23.* would bring all stake to 2", world.tx("e", Join(BOTH, 0, "")))


def test_the_table_does_not_grow_beyond_its_limit(monkeypatch):
    monkeypatch.setattr(membership, "MAX_VALIDATORS", 4)
    world = World()
    world.run("a", Transfer(key("e").public, 100))
    join = world.tx("e", Join(BOTH, 60, ""))
    refused(world, "there are 4 validators, and there is no room for more", join)
    world.state.check(join)  # one of them may leave
    world.run("d", Leave())
    world.add(join)
    assert names(world) == "abce"


def solved(world: World, name: str, block: bytes, **changes) -> Join:
    work = world.state.work
    puzzle = Puzzle("sha256", world.chain_id, work.period, block, key(name).public, work.target)
    return Join(BOTH, 0, f"at:{name}", block=block, nonce=replace(puzzle, **changes).solve())


def test_join_by_work_is_bound_to_the_key_and_a_recent_block():
    rules = Rules(admission="pow", target=MAX_TARGET >> 8, recent_blocks=3, min_stake=20)
    world = World(genesis(rules=rules))
    for _ in range(3):
        world.add()
    block = world.header().parent_hash
    good = solved(world, "e", block)
    refused(world, "does not solve the sha256 puzzle of key", world.tx("f", good))
    refused(world, "is not one of the last 3", world.tx("e", replace(good, block=NO_HASH)))
    world.state.check(world.tx("e", solved(world, "e", world.blocks[-2][0].header.hash())))
    for _ in range(3):
        world.add()
    refused(world, "is not one of the last 3; solve it again", world.tx("e", good))
    world.run("e", solved(world, "e", world.header().parent_hash))
    assert (world.of("e").stake, world.state.work.joins) == (20, 1)
    refused(world, "bonds 100, but entry by pow", world.tx("f", replace(good, stake=100)))


def test_the_puzzle_is_retargeted_by_the_joins_of_a_period():
    target = MAX_TARGET >> 8
    world = World(genesis(rules=Rules(admission="pow", target=target, joins_per_period=2, period_blocks=4)))
    world.add()
    world.run("e", solved(world, "e", world.header().parent_hash))
    while world.state.height < 4:
        world.add()
    assert (world.state.work.target, world.state.work.period, world.state.work.joins) == (2 * target, 1, 0)
    old = solved(world, "g", world.header().parent_hash, period=0)
    refused(world, "does not solve", world.tx("g", old))


def test_run_keys_vote_in_place_of_the_identity():
    world = World(real=True)
    first = certify(key("b"), key("run b"), world.chain_id, bytes(32), (0, 9)).encode()
    refused(world, "certificate is of .* not of its sender", world.tx("c", Key(first)))
    other = certify(key("b"), key("run b"), bytes(32), bytes(32), (0, 9)).encode()
    refused(world, "is for chain 0000", world.tx("b", Key(other)))
    late = certify(key("b"), key("run b"), world.chain_id, bytes(32), (2, 9)).encode()
    refused(world, "covers epochs 2 to 9, not 1", world.tx("b", Key(late)))
    stolen = certify(key("c"), key("run b"), world.chain_id, bytes(32), (0, 9)).encode()
    world.run("b", Key(first))
    assert world.state.table[world.state.table.index(key("b").public)].key == key("run b").public
    refused(world, "is that of", world.tx("c", Key(stolen)))
    refused(world, "votes with key .* already", world.tx("b", Key(first)))
    refused(world, "is a run key; transfer to its identity", world.tx("a", Transfer(key("run b").public, 1)))
    refused(world, "knows no account", world.tx("e", Key(b"")))
    world.run("b", Key(b""))
    assert world.of("b").key == key("b").public


def test_leaving_locks_the_stake_until_evidence_cannot_reach_it():
    world = World(genesis(rules=Rules(evidence_blocks=3)))
    world.run("d", Leave())
    assert names(world) == "abc"
    assert (world.of("d").stake, world.of("d").locked, world.of("d").last_epoch) == (0, 100, 0)
    refused(world, "is no member", world.tx("d", Leave()))
    for _ in range(2):
        world.run("a", Stake(0, 1))
        assert world.of("d").locked == 100
    world.add()
    assert (world.of("d").locked, world.of("d").balance) == (0, 100)
    assert world.of("a").locked == 2
    world.run("d", Join(BOTH, 98, "again"))
    assert names(world) == "abcd"


def test_the_last_validator_stays():
    world = World(genesis(account("a")))
    refused(world, "is the last validator; it cannot leave", world.tx("a", Leave()))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a", Stake(1, 0), "bonds or unbonds 0"),
        ("a", Stake(1, 1001), "bonds 1001 of a balance of 999"),
        ("a", Stake(1, 500), "would hold stake 600 of 900, above 25 % and above the smallest"),
        ("a", Stake(0, 96), "unbonds 96 of 100; 5 must stay, or leave"),
        ("e", Stake(1, 5), "is no validator and bonds nothing"),
    ],
)
def test_bad_stakes_are_refused(name, body, message):
    world = World(genesis(rules=Rules(min_stake=5)))
    world.run("a", Transfer(key("e").public, 1))
    refused(world, message, world.tx(name, body))


def test_stake_goes_down_and_up_within_the_cap():
    world = World()
    world.run("a", Stake(0, 40))
    assert (world.of("a").stake, world.of("a").locked, world.state.table.total) == (60, 40, 360)
    world.run("a", Stake(1, 40))
    assert (world.of("a").stake, world.of("a").balance) == (100, 960)
    refused(world, "would hold stake 101 of 401", world.tx("a", Stake(1, 1)))


def test_no_churn_above_the_limit_but_one_change_always():
    """With the limit alone, less than a tenth of the total, four equals could never change."""
    world = World()
    for name in "ef":
        world.run("a", Transfer(key(name).public, 100))
    two = [world.tx(name, Join(BOTH, 60, "")) for name in "ef"]
    refused(
        world,
        r"transaction 1 \(JOIN\): stake 60 of 400 has moved in epoch 0, 60 more would reach 1 tenths",
        *two,
    )
    world.state.execute(world.header(), two[:1])
    small = [world.tx("e", Join(BOTH, 20, "")), world.tx("f", Join(BOTH, 19, ""))]
    world.state.execute(world.header(), small)
    refused(world, "has moved", world.tx("e", Join(BOTH, 20, "")), world.tx("f", Join(BOTH, 20, "")))
    assert world.state.select(world.header(), two, 1 << 16) == two[:1]
    for data in two:
        world.state.check(data)  # the second may wait for the next epoch


def test_replacing_all_within_a_third_of_the_stake():
    world = World(genesis(*[account(name, balance=100) for name in "abcdefg"]))
    for old, new in zip("fg", "xy", strict=True):
        world.run("a", Transfer(key(new).public, 50)) if new == "x" else world.run(
            "b", Transfer(key(new).public, 50)
        )
        world.run(old, Leave())
        world.run(new, Join(BOTH, 50, ""))
    assert names(world) == "abcdexy"
    assert world.state.table.epoch == 4


def test_a_long_absent_validator_is_evicted_by_select():
    world = World(genesis(rules=Rules(downtime_blocks=8)))
    refused(world, "missed 0 of the last 8 commits", prove(Evict(key("d").public)))
    world.absent = {"d"}
    while not world.state.select(world.header(), [], 1 << 16):
        refused(world, "is absent", prove(Evict(key("d").public)))
        world.add()
    assert world.state.height == 9  # 8 commits seen, all missed
    (found,) = world.state.select(world.header(), [], 1 << 16)
    world.add(found)
    assert names(world) == "abc"
    assert world.of("d").locked == 100
    refused(world, "missed 0", found)


def test_the_slowest_stays_if_it_speaks():
    """A certificate holds the first quorum's votes: without this the last of four would always be evicted."""
    world = World(genesis(rules=Rules(downtime_blocks=8)))
    world.absent = {"d"}
    for height in range(1, 40):
        assert not world.state.select(world.header(), [], 1 << 16)
        world.add(*([world.tx("d", Beacon(height))] if height % 8 == 0 else []))
    while not world.state.is_absent(key("d").public):
        world.add()
    assert world.state.height == 40


def test_one_who_misses_half_stays():
    world = World(genesis(rules=Rules(downtime_blocks=8)))
    for height in range(40):
        world.absent = {"d"} if height % 2 else set()
        world.add()
        assert not world.state.select(world.header(), [], 1 << 16)


def test_transfers():
    world = World()
    world.run("a", Transfer(key("z").public, 7))
    assert (world.of("a").balance, world.of("z").balance) == (993, 7)
    for name, body, message in [
        ("a", Transfer(key("a").public, 1), "transfers to itself"),
        ("a", Transfer(key("b").public, 0), "transfers 0 of a balance of 993"),
        ("z", Transfer(key("b").public, 8), "transfers 8 of a balance of 7"),
    ]:
        refused(world, message, world.tx(name, body))
