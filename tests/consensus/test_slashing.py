"""Slashing: evidence takes a stake once, whoever brings it, and forged evidence takes none."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from pydec.consensus.evidence import Evidence
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.signed import Kind, SignedStatement, signed_bytes, timeout_body
from pydec.consensus.transactions import EvidenceOf, Forgery, Grant, Join, Leave, Stake, Transfer, prove
from pydec.crypto.serving import serving_bytes
from tests.consensus.test_membership import names, refused
from tests.consensus.world import BOTH, World, account, genesis, key


def signed(world: World, name: str, kind: Kind, round: int, body: bytes, epoch: int = 0) -> SignedStatement:
    text = signed_bytes(kind, world.chain_id, epoch, 1, round, body)
    return SignedStatement(kind, world.chain_id, epoch, 1, round, body, key(name).sign(text))


def accusation(world: World, name: str, one: SignedStatement, other: SignedStatement) -> bytes:
    return world.state.evidence_transaction(key(name).public, Evidence.of(one, other))


A, B = bytes([1]) * 32, bytes([2]) * 32
PAIRS = {
    "two proposals": ((Kind.PROPOSAL, 3, A), (Kind.PROPOSAL, 3, B)),
    "two prepares": ((Kind.PREPARE, 3, A), (Kind.PREPARE, 3, B)),
    "two commits": ((Kind.COMMIT, 3, A), (Kind.COMMIT, 3, B)),
    "two timeouts": ((Kind.TIMEOUT, 3, timeout_body(1)), (Kind.TIMEOUT, 3, timeout_body(2))),
    "amnesia": ((Kind.COMMIT, 3, A), (Kind.TIMEOUT, 5, timeout_body(2))),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_each_kind_of_evidence_takes_the_stake_once(pair):
    world = World()
    one, other = (signed(world, "d", *statement) for statement in PAIRS[pair])
    data = accusation(world, "d", one, other)
    assert data == accusation(world, "d", other, one)
    world.state.check(data)
    refused(world, "has nothing left to lose", data, data)
    world.add(data)
    assert names(world) == "abc"
    assert (world.of("d").slashed, world.state.supply.burned) == (1, 100)
    refused(world, "has nothing left to lose", data)
    refused(world, "may not join: it needs a key that has lost no stake", world.tx("d", Join(BOTH, 1, "")))
    refused(
        world, "lost its stake by its own fault", world.tx("a", Grant(key("d").public, int(Role.OBSERVER)))
    )


def test_forged_evidence_is_refused():
    world = World()
    one, other = (signed(world, "d", *statement) for statement in PAIRS["two commits"])
    good = Evidence.of(one, other)
    refused(world, "no signature of key", prove(EvidenceOf(key("c").public, good.encode())))
    refused(world, "was no validator of epoch 0", prove(EvidenceOf(key("x").public, good.encode())))
    forged = Evidence.of(one, replace(other, signature=bytes(64)))
    refused(world, "no signature of key", prove(EvidenceOf(key("d").public, forged.encode())))
    refused(world, "evidence", prove(EvidenceOf(key("d").public, one.encode() + one.encode())))
    rng = random.Random(1)
    for _ in range(60):
        changed = bytearray(good.encode())
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        refused(
            world,
            "evidence|no transaction|was no validator|ends after",
            prove(EvidenceOf(key("d").public, bytes(changed))),
        )
    alien = World(genesis(rules=Rules(min_stake=2)))
    pair = Evidence.of(*(signed(alien, "d", *statement) for statement in PAIRS["two commits"]))
    refused(world, "of chain", prove(EvidenceOf(key("d").public, pair.encode())))


def test_evidence_reaches_who_left_until_its_table_is_forgotten():
    """By epochs, as in the specification, friends of the guilty could let it expire with a stake of 1."""
    world = World(genesis(rules=Rules(evidence_blocks=30)))
    data = accusation(world, "d", *(signed(world, "d", *statement) for statement in PAIRS["amnesia"]))
    world.run("d", Leave())
    for epoch in range(2, 31):
        world.run("a", Stake(0, 1))
        assert world.state.table.epoch == epoch
    after = world.state.execute(world.header(), [data])  # height 31, the last one
    assert (after.accounts[key("d").public].locked, after.supply.burned) == (0, 100)
    world.add()
    assert world.of("d").locked == 0
    refused(world, "epoch 0 is over or not begun: those from 1 to 30 count", data)


def test_evidence_goes_first_and_within_its_bytes():
    world = World(
        genesis(*[account(name, balance=9) for name in "abcdefghij"], rules=Rules(evidence_bytes=1024))
    )
    found = [
        accusation(world, name, *(signed(world, name, *statement) for statement in PAIRS["two commits"]))
        for name in "bcdefg"
    ]
    other = world.tx("a", Transfer(key("b").public, 1))
    refused(world, "evidence comes before all other", other, found[0])
    refused(world, "takes 1024 bytes of evidence at most", *found)
    chosen = world.state.select(world.header(), [other, *found], 1 << 16)
    assert chosen == [*found[:3], other]
    world.add(*chosen)  # the churn limit does not protect the guilty
    assert names(world) == "aefghij"


def test_who_signed_that_it_gave_something_else_loses_its_stake_once():
    world, (name, other) = World(), (bytes([1]) * 32, bytes([2]) * 32)

    def forged(context: bytes = world.chain_id, **changes) -> bytes:
        body = Forgery(key("d").public, 3, 9, name, other, b"")
        body = replace(body, **changes)
        said = serving_bytes(context, 3, 9, body.name, body.digest)
        return prove(replace(body, signature=key("d").sign(said)))

    refused(world, "gave what it was asked for", forged(digest=name))
    refused(world, "no signature of key", forged(node=key("c").public))
    refused(world, "no signature of key", forged(request=10))
    refused(world, "no signature of key", forged(context=bytes(32)))
    world.add(forged())
    assert (world.of("d").slashed, world.of("d").roles, world.state.supply.burned) == (1, 0, 100)
    assert len(world.state.table) == 3
    refused(world, "has nothing left to lose", forged())
