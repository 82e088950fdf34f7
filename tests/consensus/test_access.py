"""Every role times every action, and data sets that ask for more."""

from __future__ import annotations

import itertools

import pytest

from pydec.consensus.access import NEEDED, Action, allow
from pydec.consensus.roles import Role
from pydec.consensus.transactions import Dataset, Grant, Join, Revoke
from pydec.errors import AccessDenied
from tests.consensus.world import World, account, genesis, key

ROOT, OPEN = bytes([1]) * 32, bytes([2]) * 32
TABLE = """
                admin  data-owner  trainer  validator  observer
CONFIGURE       x      .           .        .          .
GRANT_ROLES     x      .           .        .          .
REVOKE_ROLES    x      .           .        .          .
BEGIN_RUN       x      .           .        .          .
REGISTER_DATA   .      x           .        .          .
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
    data = {Action.GRANT_DATA, Action.READ_DATA}
    assert {row[0] for row in ROWS} == {action.name for action in set(Action) - data}
    assert set(NEEDED) == set(Action)
    assert [role.names for role in Role] == HEAD


@pytest.mark.parametrize(("action", "role", "allowed"), CELLS)
def test_every_role_and_action(world, action, role, allowed):
    if allowed:
        allow(world.state, key(role).public, Action[action])
        return
    with pytest.raises(AccessDenied, match=rf"may not .*: it needs the role .*, and has {role}"):
        allow(world.state, key(role).public, Action[action])


@pytest.mark.parametrize(("action", "who"), list(itertools.product(Action, ["z", "nobody"])))
def test_who_has_no_role_may_do_nothing(world, action, who):
    with pytest.raises(AccessDenied, match="and has none") as caught:
        allow(world.state, key(who).public, action, ROOT)
    assert (caught.value.identity, caught.value.action) == (key(who).public, action.value)


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
    from dataclasses import replace

    who = key("validator").public
    poor = replace(world.state.accounts[who], stake=0)
    state = replace(world.state, accounts={**world.state.accounts, who: poor})
    with pytest.raises(AccessDenied, match="may not vote and propose"):
        allow(state, who, Action.VOTE)
