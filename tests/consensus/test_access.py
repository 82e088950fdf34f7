"""Every role times every action, and data sets that ask for more."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from pydec.consensus.access import NEEDED, Action, allow
from pydec.consensus.rejoin import back
from pydec.consensus.roles import Role
from pydec.consensus.rules import Rules
from pydec.consensus.transactions import Dataset, Grant, Join, Revoke
from pydec.errors import AccessDenied, DeniedTransaction, TransactionError
from tests.consensus.world import World, account, genesis, key

ROOT, OPEN = bytes([1]) * 32, bytes([2]) * 32
TABLE = """
                admin  data-owner  trainer  validator  observer
JOIN            x      x           x        x          x
CONFIGURE       x      .           .        .          .
GRANT_ROLES     x      .           .        .          .
REVOKE_ROLES    x      .           .        .          .
BEGIN_RUN       x      .           .        .          .
SCALE           x      .           .        .          .
REGISTER_DATA   .      x           .        .          .
GRANT_DATA      .      x           .        .          .
READ_DATA       .      x           x        .          .
SERVE_DATA      .      x           x        x          .
GOSSIP          .      .           x        x          .
VOTE            .      .           .        x          .
READ_METRICS    x      x           x        x          x
READ_LEDGER     x      x           x        x          x
"""
HEAD, *ROWS = [line.split() for line in TABLE.strip().splitlines()]
CELLS = [(row[0], role, mark == "x") for row in ROWS for role, mark in zip(HEAD, row[1:], strict=True)]


@pytest.fixture(scope="module")
def world() -> World:
    """One account for each role, and z with none."""
    members = [account(name, Role.parse([name]), stake=100 if name == "validator" else 0) for name in HEAD]
    chain = World(genesis(*members, account("z", 0, 0, balance=1)))
    chain.run("data-owner", Dataset(ROOT, "secret", 1, 0, 1))
    chain.run("data-owner", Dataset(OPEN, "open", 1, 0, 0))
    return chain


def test_the_table_is_complete():
    assert [row[0] for row in ROWS] == [action.name for action in Action]
    assert set(NEEDED) == set(Action) - {Action.JOIN}
    assert [role.names for role in Role] == HEAD


@pytest.mark.parametrize(("action", "role", "allowed"), CELLS)
def test_every_role_and_action(world, action, role, allowed):
    if allowed:
        allow(world.state, key(role).public, Action[action], OPEN)
        return
    with pytest.raises(AccessDenied, match=rf"may not .*: it needs the role .*, and has {role}"):
        allow(world.state, key(role).public, Action[action], OPEN)


@pytest.mark.parametrize(("action", "who"), list(itertools.product(NEEDED, ["z", "nobody"])))
def test_who_has_no_role_may_do_nothing(world, action, who):
    with pytest.raises(AccessDenied, match="and has none") as caught:
        allow(world.state, key(who).public, action, ROOT)
    assert (caught.value.identity, caught.value.action) == (key(who).public, action.value)


def refused(world: World, reason: str, transaction: bytes) -> None:
    with pytest.raises(TransactionError, match=reason):
        world.add(transaction)


def test_data_sets_ask_for_their_owner_or_its_grant(world):
    trainer, owner = key("trainer").public, key("data-owner").public
    for who, action, root in [
        (owner, Action.GRANT_DATA, ROOT), (owner, Action.READ_DATA, ROOT), (trainer, Action.READ_DATA, OPEN),
    ]:  # fmt: skip
        allow(world.state, who, action, root)
    for who, action, root, needed in [
        (trainer, Action.READ_DATA, ROOT, "its owner's grant"),
        (trainer, Action.GRANT_DATA, ROOT, "the role data-owner"),
        (trainer, Action.READ_DATA, bytes(32), "a registered data set"),
        (key("validator").public, Action.READ_DATA, OPEN, "the role data-owner or trainer, and has val"),
    ]:
        with pytest.raises(AccessDenied, match=needed):
            allow(world.state, who, action, root)


@pytest.mark.parametrize("admission", ["stake", "invite"])
def test_who_may_come_in(admission):
    """Entry is open, or by an admin's grant; what an admin took, only an admin gives back."""
    world = World(genesis(rules=Rules(admission=admission)))
    trainer, stranger = int(Role.TRAINER), key("e").public

    def denied(name: str, needed: str) -> None:
        with pytest.raises(AccessDenied, match=needed):
            allow(world.state, key(name).public, Action.JOIN)

    if admission == "invite":
        denied("e", "may not join: it needs an admin's grant; without one it may take none")
    else:
        allow(world.state, stranger, Action.JOIN)
    world.run("a", Grant(stranger, int(Role.OBSERVER)))
    refused(world, "may not join as admin: it needs an admin's grant", world.tx("e", Join(1, 0, "")))
    world.run("e", Join(int(Role.OBSERVER), 0, ""))
    world.run("a", Revoke(key("b").public, trainer | int(Role.VALIDATOR)))
    world.run("a", Revoke(key("b").public, int(Role.OBSERVER)))
    assert world.of("b").roles == 0
    denied("b", "may not join: it needs an admin's grant; without one it may take none")
    again = world.tx("b", Join(trainer, 0, ""))
    refused(world, "may not join as trainer", again)
    with pytest.raises(DeniedTransaction):
        world.state.check(again)
    assert back(key("b"), world.state) is not None  # it asks, and is told no
    world.run("a", Grant(key("b").public, trainer))
    world.add(back(key("b"), world.state))
    assert world.of("b").roles == trainer


def test_who_lost_its_stake_comes_in_no_more(world):
    guilty = replace(world.state.accounts[key("trainer").public], slashed=1, roles=0)
    state = replace(world.state, accounts={**world.state.accounts, guilty.node_id: guilty})
    with pytest.raises(AccessDenied, match="a key that has lost no stake by its own fault"):
        allow(state, guilty.node_id, Action.JOIN)


def test_grants_and_revocations_count(world):
    trainer = key("trainer").public
    granted = World(world.genesis)
    granted.run("data-owner", Dataset(ROOT, "secret", 1, 0, 1))
    granted.run("data-owner", Grant(trainer, dataset=ROOT, wrapped=b"key"))
    allow(granted.state, trainer, Action.READ_DATA, ROOT)
    granted.run("data-owner", Revoke(trainer, dataset=ROOT))
    with pytest.raises(AccessDenied, match="its owner's grant"):
        allow(granted.state, trainer, Action.READ_DATA, ROOT)
    granted.run("admin", Grant(key("o").public, int(Role.DATA_OWNER)))
    granted.run("o", Join(int(Role.DATA_OWNER), 0, ""))
    with pytest.raises(AccessDenied, match="to be its owner"):
        allow(granted.state, key("o").public, Action.GRANT_DATA, ROOT)


def test_a_validator_without_stake_has_no_vote(world):
    who = key("validator").public
    poor = replace(world.state.accounts[who], stake=0)
    state = replace(world.state, accounts={**world.state.accounts, who: poor})
    with pytest.raises(AccessDenied, match="may not vote and propose"):
        allow(state, who, Action.VOTE)
