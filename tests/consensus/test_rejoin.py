"""A node that was evicted comes back by itself; one that left, or was punished, stays out."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import pytest

from pydec.comm.local import LocalCluster
from pydec.consensus.file_storage import create
from pydec.consensus.node import open_node
from pydec.consensus.puzzle import MAX_TARGET, Puzzle
from pydec.consensus.rejoin import Background, Rejoin, back
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.transactions import Beacon, Join, Leave, Transaction, Transfer, sign
from pydec.errors import TransactionError
from tests.consensus.cluster import Cluster
from tests.consensus.test_driver import KEYS
from tests.consensus.world import BOTH, World, account, genesis, key


def members(cluster: Cluster) -> str:
    names = {node.key.public: node.name for node in cluster.nodes.values()}
    return "".join(sorted(names[v.node_id] for v in cluster.nodes["a"].state.table.validators))


@pytest.mark.parametrize("admission", ["stake", "pow", "invite"])
@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_was_away_is_evicted_and_comes_back_by_itself(admission, seed):
    rules = Rules(downtime_blocks=8, admission=admission, target=MAX_TARGET >> 4)
    cluster = Cluster(genesis(*(account(name, balance=500) for name in "abcde"), rules=rules), "abcde", seed)
    cluster.crash("e")
    height = 0
    while "e" in members(cluster):
        height += 1
        cluster.submit("a", Transfer(key("b").public, 1))
        cluster.settle(height)
        assert height < 16
    for _ in range(cluster.draw.randrange(4)):  # it need not be the newest block that it meets
        height += 1
        cluster.submit("a", Transfer(key("b").public, 1))
        cluster.settle(height)
    node = cluster.nodes["e"]
    node.rejoin = Rejoin(node.key, lambda at: node.storage.record(at) if node.storage else None, Puzzle.solve)
    cluster.boot(node)
    cluster.run(
        lambda: members(cluster) == "abcde" and len({n.state.root() for n in cluster.nodes.values()}) == 1
    )
    found = node.state.accounts[node.key.public]
    assert found.stake == (100 if admission == "stake" else 1)
    assert (found.roles, found.address) == (int(BOTH), "at:e")
    cluster.submit("e", Transfer(key("a").public, 1))
    cluster.settle(node.state.height)
    assert cluster.nodes["a"].state.rules.admission == admission
    cluster.audit()


def rejoin(world: World, name: str) -> Rejoin:
    return Rejoin(key(name), world.record, Puzzle.solve)


def evicted(name: str = "d", **rules) -> World:
    """A chain that has evicted a node for its absence."""
    accounts = [account(one, balance=90) for one in "abcde"]
    world = World(genesis(*accounts, rules=Rules(downtime_blocks=8, **rules)))
    world.absent = {name}
    while not (chosen := world.state.select(world.header(), [], 1 << 16)):
        world.add()
    world.add(*chosen)
    assert not world.of(name).roles
    world.add()
    return world


def test_one_join_is_sent_for_one_eviction_and_again_when_it_has_become_void():
    world = evicted()
    back = rejoin(world, "d")
    first = back.due(world.state)
    assert first is not None
    assert back.due(world.state) is None
    world.add()
    assert back.due(world.state) is None  # the first one is still good
    world.add(first)
    assert world.of("d").stake == 100
    assert back.due(world.state) is None


def test_a_puzzle_is_solved_again_when_its_block_is_too_old():
    world = evicted(admission="pow", target=MAX_TARGET, recent_blocks=2)
    back = rejoin(world, "d")
    first = back.due(world.state)
    assert first is not None
    for _ in range(3):
        world.add()
    second = back.due(world.state)
    assert second not in (None, first)
    world.add(second or b"")
    assert world.of("d").stake == world.state.rules.min_stake


def test_a_stake_above_the_cap_comes_back_as_the_smallest():
    accounts = [account(name, stake=100, balance=900) for name in "abcde"]
    world = World(genesis(*accounts, rules=Rules(downtime_blocks=8, cap_percent=10)))
    world.absent = {"d"}
    while not (chosen := world.state.select(world.header(), [], 1 << 16)):
        world.add()
    world.add(*chosen)
    world.run("b", Leave())
    world.run("b", Join(BOTH, 40, "at:b"))
    back = rejoin(world, "d").due(world.state)
    assert back is not None
    body = Transaction.decode(back).body
    assert isinstance(body, Join)
    assert body.stake == 40


def test_who_left_or_is_a_member_or_unknown_stays_as_it_is():
    world = evicted()
    world.run("c", Leave())
    world.add()
    for name in "acz":
        assert rejoin(world, name).due(world.state) is None


def test_under_invite_only_what_was_granted_is_asked_for():
    world = evicted(admission="invite")
    body = Transaction.decode(rejoin(world, "d").due(world.state) or b"").body
    assert isinstance(body, Join)
    assert (body.roles, body.stake) == (int(Role.TRAINER | Role.VALIDATOR), 0)


@pytest.mark.parametrize("admission", ["stake", "invite", "pow"])
def test_whoever_is_started_on_purpose_comes_back_with_what_it_had_even_if_it_had_left(admission):
    rules = Rules(admission=admission, target=MAX_TARGET >> 4, min_stake=100)
    world = World(genesis(*(account(name) for name in "abcde"), rules=rules))
    assert back(key("e"), world.state) is None
    assert back(key("z"), world.state) is None
    world.run("e", Leave())
    assert rejoin(world, "e").due(world.state) is None
    world.add(back(key("e"), world.state))
    found = world.of("e")
    assert (found.roles, found.stake, found.address) == (world.of("a").roles, 100, "at:e")
    assert back(key("e"), world.state) is None


def test_who_may_not_come_back_gets_the_chains_reason():
    world = World(genesis(*(account(name) for name in "abcde"), rules=Rules(min_stake=100)))
    world.run("e", Leave())
    state = world.state
    punished = replace(world.of("e"), slashed=1, locked=0, granted=0)
    state = replace(state, accounts={**state.accounts, punished.node_id: punished})
    join = back(key("e"), state)
    assert join is not None
    with pytest.raises(TransactionError, match="has lost no stake by its own fault"):
        state.check(join)


def test_the_search_in_the_background_ends_and_gives_way_to_another():
    solver = Background()
    hard = Puzzle("sha256", bytes(32), 0, bytes(32), bytes(32), 1)
    easy = Puzzle("sha256", bytes(32), 0, bytes(32), bytes(32), MAX_TARGET >> 2)
    assert solver(hard) is None
    while (nonce := solver(easy)) is None:
        time.sleep(0.001)
    easy.verify(nonce)
    solver.close()


def test_a_running_node_comes_back_when_it_is_told_to(tmp_path):
    """Real drivers and files: rank 3 is away until it is evicted, then starts again."""
    accounts = [account_of(rank) for rank in range(4)]
    start = genesis(*accounts, rules=Rules(downtime_blocks=8))

    def program(transport, away):
        rank = transport.rank
        path = tmp_path / f"rank-{rank}"
        create(path, start)
        with open_node(transport, path, KEYS[rank], rejoin=True) as driver:
            if rank == 3 and away:
                return None
            me = KEYS[3].public
            until_s = transport.now() + 600.0
            while transport.now() < until_s and bool(driver.state.accounts[me].roles) == away:
                if rank == 0 and away:
                    known = driver.state.accounts[KEYS[0].public]
                    beacon = sign(KEYS[0], start.chain_id, known.sequence, Beacon(known.round + 1))
                    driver.wait([driver.submit(beacon)], 60.0)
                driver.tick()
            until_s = transport.now() + 4.0
            while transport.now() < until_s:
                driver.tick()
            return driver.state.accounts[me].roles

    assert LocalCluster(4, delay_s=0.001).run(partial(program, away=True))[:3] == [0, 0, 0]
    assert LocalCluster(4, delay_s=0.001).run(partial(program, away=False)) == [int(BOTH)] * 4


def account_of(rank: int):
    """A member with the driver tests' key of that rank."""
    made = account("a", BOTH, balance=10)
    return replace(made, node_id=KEYS[rank].public, key=KEYS[rank].public, address=f"rank:{rank}")
