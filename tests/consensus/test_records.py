"""Data sets, roles, options and the run: what is recorded, by whom, and every reason for a refusal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.state import records
from pydec.consensus.state.parts import KEPT_AUDITS, KEPT_CHECKPOINTS
from pydec.consensus.transactions import (
    NO_DIGEST,
    Audit,
    Beacon,
    Begin,
    Checkpoint,
    Config,
    Dataset,
    End,
    Grant,
    Join,
    Leave,
    Revoke,
    Stake,
    Transfer,
    Withheld,
    prove,
)
from pydec.errors import TransactionError
from tests.consensus.world import BOTH, NO_ATTESTATION, World, account, genesis, key

ROOT, OTHER, RUN = bytes([5]) * 32, bytes([6]) * 32, bytes([7]) * 32
DATA = Dataset(ROOT, "digits", 3, 0, 1)


def refused(world: World, message: str, name: str, body) -> None:
    data = prove(body) if name == "-" else world.tx(name, body)
    with pytest.raises(TransactionError, match=message):
        world.state.execute(world.header(), [data])


def test_data_sets_and_their_readers():
    world = World()
    world.run("a", DATA)
    record = world.state.datasets[ROOT]
    assert (record.owner, record.name, record.generation) == (key("a").public, "digits", 0)
    b, c = key("b").public, key("c").public
    world.run("a", Grant(c, dataset=ROOT, wrapped=b"for c"))
    world.run("a", Grant(b, dataset=ROOT, wrapped=b"for b"))
    assert {a.wrapped for a in world.state.datasets[ROOT].readers} == {b"for b", b"for c"}
    assert world.state.table.epoch == 0  # keys are readable at once and change nobody's view
    world.run("a", Revoke(c, dataset=ROOT))
    record = world.state.datasets[ROOT]
    assert (record.generation, [a.grantee for a in record.readers]) == (1, [b])
    world.run("a", Grant(b, dataset=ROOT, generation=1, wrapped=b"new"))
    world.run("a", Dataset(OTHER, "more digits", 4, 2, 0, ROOT))
    assert world.state.datasets[OTHER].parent == ROOT


def test_a_data_set_whose_owner_left_stays_with_its_readers_and_nobody_else_gives_it_away():
    world = World()
    owner = Role.TRAINER | Role.DATA_OWNER
    world.run("a", Grant(key("b").public, int(Role.DATA_OWNER)))
    world.run("b", DATA)
    c = key("c").public
    world.run("b", Grant(c, dataset=ROOT, wrapped=b"for c"))
    world.run("b", Leave())
    assert not world.of("b").roles
    record = world.state.datasets[ROOT]
    assert (record.owner, [a.grantee for a in record.readers]) == (key("b").public, [c])
    refused(world, "it needs", "b", Grant(key("d").public, dataset=ROOT, wrapped=b"x"))
    refused(world, "it needs", "a", Revoke(c, dataset=ROOT))
    refused(world, "is registered already", "a", DATA)
    world.run("b", Join(int(owner), 0, "at:b"))
    world.run("b", Revoke(c, dataset=ROOT))
    assert world.state.datasets[ROOT].readers == ()


def test_the_keys_of_a_data_set_are_bounded(monkeypatch):
    monkeypatch.setattr(records, "MOST_READERS", 2)
    world = World()
    world.run("a", DATA)
    for name in "bc":
        world.run("a", Grant(key(name).public, dataset=ROOT, wrapped=b"x"))
    refused(world, "has 2 keys out; revoke some", "a", Grant(key("d").public, dataset=ROOT, wrapped=b"x"))


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("b", Dataset(OTHER, "x", 1, 0, 0), "it needs the role data-owner, and has trainer, validator"),
        ("a", DATA, "is registered already"),
        ("a", Dataset(NO_DIGEST, "x", 1, 0, 0), "needs a root and at least one replica"),
        ("a", Dataset(OTHER, "x", 0, 0, 0), "needs a root and at least one replica"),
        ("a", Dataset(OTHER, "x", 1, 0, 0, RUN), "which its owner did not register"),
        ("a", Grant(RUN), "a grant gives roles, or access to one data set"),
        ("a", Grant(RUN, 1, ROOT), "a grant gives roles, or access to one data set"),
        ("a", Grant(RUN, 1, wrapped=b"x"), "a grant of roles carries no key"),
        ("b", Grant(RUN, 1), "may not grant roles: it needs the role admin"),
        ("a", Grant(key("b").public, int(BOTH)), "has trainer, validator already"),
        ("a", Grant(key("b").public, dataset=OTHER, wrapped=b"x"), "no data set 0606"),
        ("b", Grant(key("b").public, dataset=ROOT, wrapped=b"x"), "may not grant access to the data set"),
        ("a", Grant(key("b").public, dataset=ROOT), "needs an encrypted data set and a wrapped key"),
        ("a", Grant(key("z").public, dataset=ROOT, wrapped=b"x"), "knows no account"),
        (
            "a",
            Grant(key("b").public, dataset=ROOT, generation=1, wrapped=b"x"),
            "generation 1 of 0 has no key",
        ),
        ("a", Grant(key("c").public, dataset=ROOT, wrapped=b"x"), "has the key of generation 0 already"),
        ("a", Revoke(key("b").public, dataset=ROOT), "has no key of data set"),
        ("a", Revoke(key("b").public), "a revocation takes roles, or access"),
        ("a", Revoke(key("b").public, int(Role.ADMIN)), "does not have admin"),
        ("a", Revoke(key("a").public, int(Role.ADMIN)), "is the last admin"),
        ("b", Revoke(key("a").public, int(Role.ADMIN)), "may not revoke roles: it needs the role admin"),
        ("a", Config(()), "changes nothing"),
        ("b", Config((("f", "1"),)), "may not change options: it needs the role admin"),
        ("a", Config((("g", "1"),)), "unknown option 'g'; known: admission, algorithm"),
        ("a", Config((("f", "01"),)), "option f must be a whole number in .* got '01'"),
        ("a", Config((("admission", "money"),)), "must be pow or stake or invite, got 'money'"),
        ("a", Config((("topology", "ring; rm"),)), "must be a specification such as"),
        ("a", Beacon(0), "reported round 0 before, now 0"),
        ("b", Begin(RUN, OTHER), "may not begin a run: it needs the role admin"),
        ("a", Begin(NO_DIGEST, OTHER), "is not a new one"),
        ("-", Checkpoint(0, 1, ROOT, NO_ATTESTATION), "no run is going on"),
        ("-", End(0, RUN, 1, ROOT, NO_ATTESTATION), "run 0707.* is not going on"),
        ("-", Audit(0, key("z").public, 1, 0, ROOT, NO_ATTESTATION), "knows no account"),
        ("-", Audit(0, key("b").public, 1, 0, ROOT, NO_ATTESTATION), "needs 4 bits"),
        ("-", Audit(7, key("b").public, 1, 0, ROOT, NO_ATTESTATION), "epoch 7 is over or not begun"),
    ],
)
def test_refusals(name, body, message):
    world = World()
    world.run("a", DATA)
    world.run("a", Grant(key("c").public, dataset=ROOT, wrapped=b"for c"))
    refused(world, message, name, body)


def test_roles_come_and_go_with_the_next_epoch():
    world = World()
    world.run("a", Grant(key("b").public, int(Role.ADMIN)))
    assert (Role(world.of("b").roles).names, world.state.table.epoch) == ("admin, trainer, validator", 1)
    world.run("b", Revoke(key("a").public, int(Role.ADMIN)))
    refused(world, "it needs the role admin", "a", Config((("f", "1"),)))
    world.run("b", Revoke(key("c").public, int(Role.VALIDATOR)))
    assert (world.of("c").stake, world.of("c").locked, len(world.state.table)) == (0, 100, 3)
    assert Role(world.of("c").roles) == Role.TRAINER
    refused(world, "is no validator", "c", Stake(1, 1))


def test_a_role_for_a_stranger_waits_for_its_join():
    world = World()
    world.run("a", Grant(key("e").public, int(Role.DATA_OWNER)))
    assert world.of("e").roles == 0
    refused(world, "may not register a data set: it needs the role data-owner, and has none", "e", DATA)
    world.run("e", Join(int(Role.DATA_OWNER), 0, ""))
    world.run("e", DATA)
    assert len(world.state.table) == 4


def test_options_are_merged_and_may_change_admission():
    world = World(genesis(topology="ring"))
    world.run("a", Config((("admission", "invite"), ("f", "1"))))
    assert world.state.run.options == (("admission", "invite"), ("f", "1"), ("topology", "ring"))
    assert world.state.table.epoch == 1
    world.run("a", Transfer(key("e").public, 50))
    refused(world, "may not join as trainer, validator", "e", Join(BOTH, 0, ""))


def test_a_run_begins_keeps_checkpoints_and_ends():
    world = World()
    world.run("a", Begin(RUN, OTHER))
    assert (world.state.run.running, world.state.run.config, world.state.run.began) == (True, OTHER, 1)
    refused(world, "has not ended", "a", Begin(OTHER, OTHER))
    for round in range(1, KEPT_CHECKPOINTS + 3):
        world.add(prove(world.attested(Checkpoint(0, round, ROOT, NO_ATTESTATION))))
    assert [c.round for c in world.state.run.checkpoints] == list(range(3, KEPT_CHECKPOINTS + 3))
    old = world.attested(Checkpoint(0, 2, ROOT, NO_ATTESTATION))
    refused(world, "round 10 has a checkpoint, now one of 2", "-", old)
    world.add(prove(world.attested(End(0, RUN, 99, OTHER, NO_ATTESTATION))))
    run = world.state.run
    assert (run.running, run.ended, run.end_round, run.end_root) == (False, 12, 99, OTHER)
    refused(world, "is not going on", "-", world.attested(End(0, RUN, 99, OTHER, NO_ATTESTATION)))
    refused(world, "is not a new one", "a", Begin(RUN, OTHER))
    world.run("a", Begin(OTHER, RUN))
    assert world.state.run.checkpoints == ()


def test_a_quorum_must_attest():
    world = World()
    world.run("a", Begin(RUN, OTHER))
    body = Checkpoint(0, 5, ROOT, NO_ATTESTATION)
    refused(world, "stake 200 of 400 attested, which is no quorum", "-", world.attested(body, "ab"))
    good = world.attested(body, "abc")
    world.state.execute(world.header(), [prove(good)])
    for change in ({"round": 6}, {"root": OTHER}):
        changed = type(good)(**{**good.__dict__, **change})
        refused(world, r"attestation of validator \d: no signature of key", "-", changed)
    other = World(genesis(rules=Rules(min_stake=2)))
    other.run("a", Begin(RUN, OTHER))
    refused(other, "no signature of key", "-", good)


def test_who_attests_is_not_absent():
    world = World(genesis(rules=Rules(downtime_blocks=8)))
    world.run("a", Begin(RUN, OTHER))
    world.absent = {"d"}
    for round in range(1, 30):
        world.add(prove(world.attested(Checkpoint(0, round, ROOT, NO_ATTESTATION))))
        assert world.of("d").seen == world.state.height
    assert not world.state.is_absent(key("d").public)
    while not world.state.is_absent(key("d").public):
        world.add(prove(world.attested(Checkpoint(0, world.state.height + 1, ROOT, NO_ATTESTATION), "abc")))
    assert world.state.height == 38


def test_attestations_of_the_epoch_before_still_count():
    world = World()
    world.run("a", Begin(RUN, OTHER))
    first = [prove(world.attested(Checkpoint(0, round, ROOT, NO_ATTESTATION), "abc")) for round in (1, 2)]
    world.run("d", Leave())
    world.add(first[0])
    world.run("a", Stake(0, 1))
    with pytest.raises(TransactionError, match="epoch 0 is over or not begun: those from 1 to 2"):
        world.state.execute(world.header(), [first[1]])


def test_the_guilty_of_an_audit_lose_their_stake():
    world = World()
    d = key("d").public
    world.add(prove(world.attested(Audit(0, d, 3, 0, ROOT, NO_ATTESTATION))))
    again = world.attested(Audit(0, d, 3, 1, ROOT, NO_ATTESTATION))
    refused(world, "round 3 of .* has been audited", "-", again)
    world.add(prove(world.attested(Audit(0, d, 4, 1, OTHER, NO_ATTESTATION), "abc")))
    assert (world.of("d").slashed, world.state.supply.burned, len(world.state.table)) == (1, 100, 3)
    assert [(a.round, a.guilty) for a in world.state.run.audits] == [(3, 0), (4, 1)]
    refused(world, "is no member and has no stake", "-", Audit(1, d, 5, 1, ROOT, NO_ATTESTATION))


def test_who_withholds_data_loses_its_stake_once_if_a_quorum_says_so():
    world, d = World(), key("d").public
    body = Withheld(0, d, ROOT, OTHER, NO_ATTESTATION)
    refused(world, "is not registered, so that .* owes nothing of it", "-", world.attested(body))
    world.run("a", DATA)
    refused(world, "which is no quorum", "-", world.attested(body, "ab"))
    said = world.attested(body, "abc")
    refused(world, "no signature of key", "-", replace(said, name=ROOT))
    world.add(prove(said))
    assert (world.of("d").slashed, world.of("d").roles, world.state.supply.burned) == (1, 0, 100)
    assert len(world.state.table) == 3
    refused(world, "is no member and has no stake", "-", said)


def test_only_the_last_audits_are_kept():
    world = World(genesis(account("a", balance=1)))
    for round in range(KEPT_AUDITS + 2):
        world.add(prove(world.attested(Audit(0, key("a").public, round, 0, ROOT, NO_ATTESTATION))))
    assert len(world.state.run.audits) == KEPT_AUDITS


def test_a_change_takes_effect_some_rounds_after_what_an_honest_node_has_reached():
    world = World(genesis(rules=Rules(margin_rounds=10)))
    world.run("a", Beacon(100))
    assert world.state.effect_round == 0
    world.run("b", Beacon(70))
    world.run("c", Beacon(1 << 60))  # a liar
    world.run("a", Config((("f", "1"),)))
    assert world.state.effect_round == 110  # a and c alone are more than a third, and one of them is honest
    world.run("a", Config((("f", "0"),)))
    assert world.state.effect_round == 110
    world.run("a", Transfer(key("y").public, 1))
    refused(world, "does not train", "y", Beacon(1))
    refused(world, "knows no account", "z", Beacon(1))
