"""Members held for dead: who can evict whom, what it costs, and how soon an idle ledger does it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from pydec.comm.local import LocalCluster
from pydec.consensus.attestation import attest, collect
from pydec.consensus.deaths import SHARE, Deaths, Submit
from pydec.consensus.effects import Broadcast, Report
from pydec.consensus.epochs import members, view_of
from pydec.consensus.file_storage import create
from pydec.consensus.member import Member
from pydec.consensus.node import founders, open_node
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.simulator.scenarios import death
from pydec.consensus.state.membership import first_round
from pydec.consensus.transactions import Dead, Join, Leave, Stake, prove, statement
from pydec.crypto.signing import SigningKey
from pydec.errors import TransactionError
from tests.consensus.world import BOTH, NO_ATTESTATION, World, account, genesis, key


def world(names: str = "abcde", **rules) -> World:
    accounts = [replace(account(name), address=f"rank:{n}") for n, name in enumerate(names)]
    return World(genesis(*accounts, rules=Rules(**{"margin_rounds": 0, **rules})))


def names(on: World) -> str:
    return "".join(sorted(on.names[account.node_id] for account in members(on.state)))


def dead(on: World, whom: str, rounds: dict[str, int], epoch: int = 0) -> Dead:
    """The death of ``whom``, signed by these, each waiting at its round."""
    tables = (on.state.table, *(past.table for past in on.state.tables))
    table = next(table for table in tables if table.epoch == epoch)
    by_index = {table.index(key(name).public): (name, round) for name, round in rounds.items()}
    body = Dead(epoch, key(whom).public, (), NO_ATTESTATION)
    shares = {
        index: attest(key(name), on.chain_id, statement(replace(body, rounds=(round,))))
        for index, (name, round) in by_index.items()
    }
    said = tuple(by_index[index][1] for index in sorted(by_index))
    return replace(body, rounds=said, attestation=collect(table, shares))


def refused(on: World, message: str, *bodies: Dead) -> None:
    before = on.state.root()
    with pytest.raises(TransactionError, match=message):
        on.state.execute(on.header(), [prove(body) for body in bodies])
    assert on.state.root() == before


def test_a_quorum_evicts_a_dead_member_and_the_view_without_it_begins_beyond_what_they_said():
    on = world()
    on.add(prove(dead(on, "e", {"a": 40, "b": 41, "c": 42, "d": 1 << 60})))  # a liar moves nothing
    assert names(on) == "abcd"
    assert on.state.effect_round == 42 + 5
    view = view_of(on.state, on.header().parent_hash)
    assert (view.epoch, sorted(view.members), view.start_round) == (1, [0, 1, 2, 3], 47)
    gone = on.of("e")
    assert (gone.stake, gone.locked, gone.slashed, on.state.supply.burned) == (0, 100, 0, 0)
    assert on.of("a").seen == 1  # who signs lives


def test_the_first_round_is_that_of_an_honest_signer():
    table = world().state.table
    assert first_round(table, {0: 7, 1: 9, 2: 11, 3: 500}) == 11 + 5
    assert first_round(table, {0: 7, 1: 7, 2: 7, 3: 7}) == 7 + 5


def test_a_minority_cannot_evict():
    on = world()
    refused(on, "stake 300 of 500 attested, which is no quorum", dead(on, "e", {"a": 1, "b": 1, "c": 1}))
    four = dead(on, "e", {"a": 1, "b": 1, "c": 1, "d": 1})
    refused(on, "3 statements", replace(four, rounds=(1, 1, 1)))
    refused(on, "attestation of validator", replace(four, rounds=(1, 1, 1, 2)))
    refused(on, "has signed itself that it is dead", dead(on, "e", {"a": 1, "b": 1, "c": 1, "e": 1}))
    refused(on, "the chain knows no account", dead(on, "z", {"a": 1, "b": 1, "c": 1, "d": 1}))


def test_signatures_of_another_epoch_chain_or_membership_are_refused():
    on = world()
    old = dead(on, "e", {"a": 1, "b": 1, "c": 1, "d": 1})
    refused(world("abcdef"), "attest", old)
    on.run("e", Leave())
    on.run("e", Join(BOTH, 100, "rank:4"))  # with the stake that was locked
    assert names(on) == "abcde"
    refused(on, "epoch 0 is over or not begun", old)


def test_a_trainer_that_is_back_in_the_same_block_is_not_evicted_by_the_old_signatures():
    trainer = account("e", Role.TRAINER, stake=0)
    on = World(genesis(*(account(name) for name in "abcd"), trainer))
    old = dead(on, "e", {"a": 1, "b": 1, "c": 1})
    back = on.tx("e", Join(int(Role.TRAINER), 0, "rank:4"))
    with pytest.raises(
        TransactionError, match="has joined again at height 1, after epoch 0 held it for dead"
    ):
        on.state.execute(on.header(), [prove(old), back, prove(old)])
    on.add(prove(old), back)
    assert names(on) == "abcde"
    refused(on, "has joined again at height 1, after epoch 0 held it for dead", old)
    fresh = dead(on, "e", {"a": 1, "b": 1, "d": 1}, epoch=1)
    on.add(prove(fresh))
    refused(on, "is no member that could be held for dead", fresh)


def test_a_live_member_that_is_evicted_loses_its_place_only():
    on = world()
    before = on.of("e")
    on.add(prove(dead(on, "e", {"a": 1, "b": 1, "c": 1, "d": 1})))
    on.run("e", Join(BOTH, 100, "rank:4"))
    after = on.of("e")
    assert (after.stake, after.balance, after.locked) == (before.stake, before.balance, before.locked)
    assert after.roles == before.roles
    with pytest.raises(TransactionError, match="unbonds 100 of 100"):
        on.run("e", Stake(0, 100))


def test_several_deaths_wait_for_one_another_and_for_nothing_else():
    on = world("abcdefgh")
    living = dict.fromkeys("abcdef", 20)
    both = [prove(dead(on, whom, living)) for whom in "gh"]
    with pytest.raises(TransactionError, match="wait for the next epoch"):
        on.state.execute(on.header(), both)
    for data in both:
        on.state.check(data)  # both may wait in a pool
    assert on.state.select(on.header(), both, 1 << 20) == both[:1]
    on.add(both[0])
    on.add(both[1])  # signed in the epoch before
    assert names(on) == "abcdef"
    assert on.state.table.epoch == 2


def machines(on: World, **promises: int) -> dict[str, Any]:
    def subjects(state):
        return {account.node_id for account in members(state)}

    return {
        name: Deaths(Member(on.chain_id, key(name).public, key(name)), partial(int, promise), subjects)
        for name, promise in promises.items()
    }


def test_shares_make_a_transaction_and_a_third_of_the_stake_convinces_the_rest():
    on = world()
    nodes = machines(on, a=10, b=12, c=14, d=100)
    (first,) = nodes["a"].suspect(on.state, key("e").public)
    (second,) = nodes["b"].suspect(on.state, key("e").public)
    assert isinstance(first, Broadcast)
    assert (nodes["a"].hold, nodes["a"].waiting) == (10, {key("e").public})
    assert nodes["a"].suspect(on.state, key("e").public) == []
    assert nodes["c"].receive(on.state, key("a").public, first.data) == []
    assert nodes["c"].hold is None  # one of five may lie
    (third,) = nodes["c"].receive(on.state, key("b").public, second.data)
    assert nodes["c"].hold == 12  # it waits where others do, not at its own 14
    done = []
    for sender, share in (("a", first), ("b", second), ("c", third)):
        done += nodes["d"].receive(on.state, key(sender).public, share.data)
    assert [type(effect) for effect in done] == [Broadcast, Submit]
    on.add(done[1].transaction)
    assert names(on) == "abcd"
    assert on.state.effect_round == 14 + 5
    for node in nodes.values():
        assert node.committed(on.state) == []
        assert (node.hold, node.waiting) == (None, frozenset())
    assert nodes["d"].receive(on.state, key("a").public, first.data) == []  # a share of the old epoch


def test_those_who_live_and_are_no_quorum_stop_at_the_first_round_that_one_of_them_promised():
    on = world("abcdefg")
    nodes = machines(on, a=10, b=14, c=12)
    shares = {}
    for name, node in nodes.items():
        shares[name] = [node.suspect(on.state, key(gone).public)[0] for gone in "defg"]
    assert (nodes["a"].hold, nodes["b"].hold, nodes["c"].hold) == (10, 14, 12)
    for sender in "ac":
        nodes["b"].receive(on.state, key(sender).public, shares[sender][0].data)
    assert nodes["b"].hold == 10  # two of seven: with a quorum alive it would be at its own
    on = world("abcdefg")
    nodes = machines(on, a=10, b=14)
    (share,) = nodes["a"].suspect(on.state, key("g").public)
    nodes["b"].suspect(on.state, key("g").public)
    nodes["b"].receive(on.state, key("a").public, share.data)
    assert nodes["b"].hold == 14


def test_what_is_not_decided_is_signed_again_in_the_next_epoch():
    on = world()
    nodes = machines(on, a=10, b=11)
    (share,) = nodes["a"].suspect(on.state, key("e").public)
    on.run("d", Leave())
    (again,) = nodes["a"].committed(on.state)
    assert again.data != share.data
    assert nodes["b"].receive(on.state, key("a").public, share.data) == []
    nodes["b"].receive(on.state, key("a").public, again.data)
    (said,) = nodes["a"].again(on.state)
    assert said == again


def test_wrong_shares_are_reported_and_nobody_signs_its_own_death():
    on = world()
    nodes = machines(on, a=10, b=11, c=12, e=13)
    (share,) = nodes["a"].suspect(on.state, key("e").public)
    for data, why in (
        (share.data[:-1], "of 113 bytes"),
        (share.data[:-1] + bytes([share.data[-1] ^ 1]), "did not sign"),
        (share.data[:41] + b"\xff" + share.data[42:], "makes no sense"),
    ):
        (report,) = nodes["b"].receive(on.state, key("a").public, data)
        assert isinstance(report, Report)
        assert why in report.reason
    (stolen,) = nodes["b"].receive(on.state, key("c").public, share.data)
    assert "did not sign" in stolen.reason
    assert nodes["e"].suspect(on.state, key("e").public) == []
    for name in "ab":
        (share,) = nodes[name].suspect(on.state, key("e").public) or nodes[name].again(on.state)
        assert nodes["e"].receive(on.state, key(name).public, share.data) == []
    assert nodes["e"].hold is None
    assert share.data[0] == SHARE


def test_a_node_without_a_vote_waits_and_does_not_sign():
    on = world()
    observer: Any = Deaths(
        Member(on.chain_id, key("z").public, None), lambda: 5, lambda state: {key("e").public}
    )
    assert observer.suspect(on.state, key("e").public) == []
    assert observer.hold == 5


@pytest.mark.parametrize("seed", range(10))
def test_an_idle_ledger_evicts_within_five_message_delays_of_the_quorums_signatures(seed):
    """One for the shares, one to the leader, three for the block."""
    delays, _ = death(seed, size=4 + seed % 4)
    assert delays <= 5.0
    delays, on = death(seed, size=4 + seed % 4, delay_s=(0.0005, 0.002))
    assert delays <= 5.0
    assert not set(on.watch.accused) & on.watch.honest


KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 8)]


def test_drivers_evict_a_rank_that_two_of_them_see_dead_and_nothing_waits_for_it(tmp_path):
    def program(transport):
        path = tmp_path / f"rank-{transport.rank}"
        create(path, founders("test", [key.public for key in KEYS[: transport.size]]))
        with open_node(transport, path, KEYS[transport.rank]) as driver:
            if transport.rank == 4:
                return None
            driver.deaths.promise = lambda: 30 + transport.rank
            if transport.rank < 2:
                driver.deaths.saw(KEYS[4].public)
            driver.wait_for_height(1, 60.0)
            while driver.tick():
                pass
            state = driver.state
            assert driver.deaths.hold is None
            assert not driver.deaths.undecided
            assert not driver.reports
            return sorted(view_of(state, driver.head[1]).members), state.effect_round

    found = LocalCluster(5, seed=2, delay_s=0.001).run(program)[:4]
    assert [members for members, _ in found] == [[0, 1, 2, 3]] * 4
    assert 30 + 5 <= found[0][1] <= 33 + 5
