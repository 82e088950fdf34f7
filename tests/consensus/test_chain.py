"""The state as a whole: same root on every node, stake is conserved, select and execute agree."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from pydec.consensus.block import packed_bytes
from pydec.consensus.rules import Rules
from pydec.consensus.state.chain import ChainState, rebased
from pydec.consensus.state.execute import AHEAD
from pydec.consensus.state.parts import ACCOUNT
from pydec.consensus.state.snapshot import decode, encode
from pydec.consensus.transactions import (
    NO_DIGEST,
    Beacon,
    Begin,
    Checkpoint,
    Config,
    Dataset,
    Evict,
    Grant,
    Join,
    Key,
    Leave,
    Revoke,
    Stake,
    Transfer,
    prove,
)
from pydec.consensus.validators import Validator, ValidatorTable
from pydec.errors import TransactionError
from tests.consensus.world import BOTH, NO_ATTESTATION, World, account, genesis, key

NAMES = "abcdefgh"


def drawn_body(rng: random.Random, world: World):
    """Any transaction body, often a sensible one."""
    other = key(rng.choice(NAMES)).public
    root = bytes([rng.randrange(4)]) * 32
    return rng.choice(
        [
            Join(rng.choice([BOTH, BOTH, 4, 31, 0]), rng.choice([0, 1, 20, 60, 1 << 61]), "x"),
            Leave(),
            Stake(rng.randrange(2), rng.choice([0, 1, 5, 30, 99, 1 << 61])),
            Transfer(other, rng.choice([0, 1, 70, 10**6])),
            Key(b""),
            Dataset(root, "d", 2, 1, 1),
            Grant(
                other, rng.choice([0, 1, 2, 12]), rng.choice([NO_DIGEST, root]), 0, rng.choice([b"", b"w"])
            ),
            Revoke(other, rng.choice([0, 8, 12]), rng.choice([NO_DIGEST, root])),
            Config(rng.choice([(), (("f", "1"),), (("admission", "invite"),)])),
            Beacon(rng.randrange(100)),
            Begin(root, root),
        ]
    )


def drawn_pool(rng: random.Random, world: World) -> list[bytes]:
    pool = []
    for name in NAMES:
        known = world.state.accounts.get(key(name).public)
        first = known.sequence if known else 0
        pool += [world.tx(name, drawn_body(rng, world), first + n) for n in range(rng.randrange(3))]
        pool += [world.tx(name, drawn_body(rng, world), rng.randrange(5))]
    pool += [prove(Evict(key(rng.choice(NAMES)).public)), rng.randbytes(40)]
    if world.state.run.running:
        body = Checkpoint(world.state.table.epoch, rng.randrange(50), NO_DIGEST, NO_ATTESTATION)
        pool.append(prove(world.attested(body)))
    rng.shuffle(pool)
    return pool


def check_invariants(state: ChainState) -> None:
    accounts = state.accounts.values()
    assert sum(a.balance + a.stake + a.locked for a in accounts) == state.supply.total
    assert state.table.total == sum(a.stake for a in accounts if a.is_validator)
    assert all(a.stake == 0 or a.is_validator for a in accounts)
    assert all(0 <= a.entry <= a.stake for a in accounts)
    assert len(state.priorities) == len(state.presence) == len(state.table)
    assert [p.node_id for p in state.presence] == [v.node_id for v in state.table.validators]
    assert 0 <= state.leader < len(state.table)
    assert state.decided_by.epoch in (state.table.epoch, state.table.epoch - 1)


def test_random_chains_have_the_same_root_everywhere_and_lose_no_stake():
    kinds: Counter[object] = Counter()
    for seed in range(8):
        run_chain(random.Random(seed), kinds)
    assert len([kind for kind in kinds if isinstance(kind, int)]) >= 10
    assert len(kinds) >= 16  # the rest are reasons of refusals


def run_chain(rng: random.Random, kinds: Counter[object]) -> None:
    admission = rng.choice(["stake", "invite"])
    rules = Rules(admission=admission, min_stake=5, downtime_blocks=8, evidence_blocks=6)
    members = [account("a", 15, balance=1000), *(account(name, balance=100) for name in "bcd")]
    world = World(genesis(*members, rules=rules))
    for _ in range(25):
        world.absent = {name for name in "cd" if rng.random() < 0.3}
        pool = drawn_pool(rng, world)
        before, copy = world.state, decode(encode(world.state), world.state.chain_id)
        for data in pool:
            try:
                world.state.check(data)
            except TransactionError as error:
                kinds[str(error).split(maxsplit=1)[0]] += 1
        header = world.header()
        chosen = before.select(header, pool, rng.choice([300, 1 << 16]))
        assert chosen == copy.select(header, pool, 1 << 16)[: len(chosen)] or packed_bytes(chosen) <= 300
        assert before.execute(header, chosen).root() == copy.execute(header, chosen).root()
        kinds.update(data[0] for data in chosen)
        world.add(*chosen)
        assert world.state.height == before.height + 1
        check_invariants(world.state)
        again = decode(encode(world.state), world.state.chain_id)
        assert again == world.state
        assert again.root() == world.state.root()


@pytest.mark.parametrize("seed", range(5))
def test_what_select_leaves_out_is_refused_and_leaves_no_trace(seed):
    rng, world = random.Random(seed), World()
    world.run("a", Transfer(key("e").public, 100))
    pool = drawn_pool(rng, world)
    for data in pool:
        before = world.state.root()
        try:
            after = world.state.execute(world.header(), [data])
        except TransactionError:
            assert world.state.select(world.header(), [data], 1 << 16) == []
        else:
            assert world.state.select(world.header(), [data], 1 << 16) == [data]
            assert after.root() != before
        assert world.state.root() == before


def test_a_refused_transaction_changes_nothing_of_a_draft():
    """``select`` goes on with a draft that refused something, so no handler may half-execute."""
    rng = random.Random(3)
    for _ in range(40):
        world = World()
        pool = drawn_pool(rng, world)
        chosen = world.state.select(world.header(), pool, 1 << 16)
        assert world.state.execute(world.header(), chosen).root()  # from a fresh draft: the same are accepted


def test_senders_are_taken_in_the_order_of_their_numbers():
    world = World()
    pool = [world.tx("a", Transfer(key("b").public, 1 + n), n) for n in range(4)]
    other = world.tx("b", Transfer(key("c").public, 1))
    mixed = [pool[2], other, pool[0], pool[3], pool[1]]
    assert world.state.select(world.header(), mixed, 1 << 16) == [*pool, other]
    with pytest.raises(
        TransactionError, match=r"transaction 0 \(TRANSFER\): transaction 1 of .*; its next is 0"
    ):
        world.state.execute(world.header(), [pool[1]])
    world.add(*pool)
    with pytest.raises(TransactionError, match=r"transaction 3 of .*; its next is 4"):
        world.state.execute(world.header(), [pool[3]])


def test_the_size_of_a_block_is_kept():
    world = World()
    pool = [world.tx("a", Transfer(key("b").public, 1), n) for n in range(10)]
    most = packed_bytes(pool[:3])
    assert world.state.select(world.header(), pool, most) == pool[:3]
    assert world.state.select(world.header(), pool, most - 1) == pool[:2]


def test_a_pool_takes_what_may_become_right():
    world = World()
    for n in (0, 1, AHEAD - 1):
        world.state.check(world.tx("a", Transfer(key("b").public, 1), n))
    for data, message in [
        (world.tx("a", Transfer(key("b").public, 1), AHEAD), "its next is 0"),
        (world.tx("a", Transfer(key("b").public, 1), 1)[:-1] + b"\0", "no signature"),
        (world.tx("z", Transfer(key("b").public, 1), 0), "knows no account"),
        (world.tx("z", Transfer(key("b").public, 1), 1), "knows no account"),
        (b"", "no transaction is of kind 0"),
        (bytes(1 << 18), "a transaction of 262144 bytes; the chain takes 131072"),
    ]:
        with pytest.raises(TransactionError, match=message):
            world.state.check(data)


def test_headers_must_follow():
    from dataclasses import replace

    world = World()
    for change in ({"height": 2}, {"epoch": 1}, {"chain_id": NO_DIGEST}):
        with pytest.raises(TransactionError, match="cannot follow"):
            world.state.execute(replace(world.header(), **change), [])


def test_only_signers_lead_and_newcomers_start_behind():
    world = World()
    world.absent = {"d"}
    leaders = []
    for _ in range(30):
        world.add()
        leaders.append(world.names[world.state.table[world.state.leader].node_id])
    assert Counter(leaders[2:]).keys() == {"a", "b", "c"}
    world.absent = set()
    world.add()
    world.add()
    assert "d" in {world.names[world.state.table[world.add().leader].node_id] for _ in range(4)}


def test_rebased_priorities_stay_bounded_and_centred():
    rng = random.Random(1)
    priorities: tuple[int, ...] = (0, 0, 0)
    table = ValidatorTable.of(0, [Validator(bytes([i]) * 32, bytes([i]) * 32, 10) for i in range(3)])
    for epoch in range(1, 200):
        members = sorted(rng.sample(range(12), rng.randrange(1, 12)))
        new = ValidatorTable.of(
            epoch, [Validator(bytes([i]) * 32, bytes([i]) * 32, rng.randrange(1, 1 << 40)) for i in members]
        )
        priorities = rebased(table, priorities, new)
        table = new
        assert max(map(abs, priorities)) <= 2 * new.total
        assert len(priorities) == len(new)


def test_a_changed_account_is_one_made_anew():
    before = account("a", BOTH, 100)
    assert before.encoded == ACCOUNT.encode(before)  # which it remembers
    after = before.changed(round=7, seen=3)
    assert after == replace(before, round=7, seen=3)
    assert after.encoded == ACCOUNT.encode(replace(before, round=7, seen=3)) != before.encoded
    with pytest.raises(TypeError):
        before.changed(rounds=7)


def test_states_do_not_hold_their_past():
    world = World()
    for _ in range(3):
        world.add()
    assert world.state.parent is None


def test_stake_near_its_limit():
    top = (1 << 62) - 1
    share = top // 5
    members = [account(name, stake=share) for name in "abcd"]
    world = World(genesis(*members, account("e", 0, 0, balance=top - 4 * share)))
    world.run("e", Join(BOTH, share, ""))
    assert world.state.table.total == 5 * share
    world.run("a", Leave())
    check_invariants(world.state)
