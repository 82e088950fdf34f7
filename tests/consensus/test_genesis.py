"""The genesis: from JSON to the same bytes everywhere, and one clear line for every mistake in it."""

from __future__ import annotations

import json

import pytest

from pydec.consensus.genesis import Genesis, load, parse
from pydec.consensus.rules import Rules
from pydec.errors import ConfigError, FrameError, SetupError
from tests.consensus.world import account, genesis, key

A, B, C = (key(name).public.hex() for name in "abc")


def content(**changes):
    members = [{"node_id": node, "roles": ["trainer", "validator"], "stake": 100} for node in (A, B, C)]
    return {"name": "demo", "accounts": members, **changes}


def test_the_order_of_the_file_does_not_matter(tmp_path):
    path = tmp_path / "genesis.json"
    ids = set()
    for text in (content(), {**content(), "accounts": content()["accounts"][::-1]}):
        path.write_text(json.dumps(text))
        ids.add(load(path).chain_id)
    assert len(ids) == 1
    changes = [{"name": "x"}, {"rules": {"min_stake": 2}}, {"options": {"f": 1}}, {"previous": "07" * 32}]
    different = [content(**change) for change in changes]
    assert len({parse(text).chain_id for text in different} | ids) == 5


def test_bytes_come_back():
    start = genesis(rules=Rules(admission="pow", puzzle="scrypt"), topology="ring")
    assert Genesis.decode(start.encode()) == start
    data = start.encode()
    for length in range(len(data)):
        with pytest.raises(FrameError):
            Genesis.decode(data[:length])
    with pytest.raises(FrameError, match="1 bytes after its end"):
        Genesis.decode(data + b"\0")


def test_an_account_has_no_past():
    from dataclasses import replace

    past = replace(account("a"), sequence=7)
    with pytest.raises(FrameError, match="has a past"):
        Genesis.decode(genesis(past, account("b")).encode())


def test_the_state_at_height_0():
    state = genesis().state()
    assert (state.height, state.table.epoch, len(state.table), state.decided_by) == (0, 0, 4, state.table)
    assert state.supply.total == 4 * 100 + 1050
    assert state.root() == genesis().state().root() != genesis(f="1").state().root()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, "name must be of type str, got 3"),
        ({"names": "x"}, "unknown field 'names'; known: name, accounts, rules, options, previous"),
        ({"name": "h\u00e9"}, "printable ASCII"),
        ({"accounts": []}, "has 1 to 1024 validators with stake, got 0"),
        ({"accounts": [3]}, "account 0 must be a JSON object, got int"),
        ({"accounts": [{"roles": []}]}, "account 0 lacks 'node_id'"),
        ({"accounts": [{"node_id": "xy", "roles": []}]}, "node_id must be 64 hexadecimal digits, got 'xy'"),
        ({"accounts": [{"node_id": A, "roles": ["king"]}]}, "unknown role 'king'; known: admin, data-owner"),
        (
            {"accounts": [{"node_id": A, "roles": ["validator"], "stake": True}]},
            "stake must be of type int, got True",
        ),
        (
            {"accounts": [{"node_id": A, "roles": ["validator"], "stake": 1.5}]},
            "stake must be of type int, got 1.5",
        ),
        ({"accounts": [{"node_id": A, "roles": ["validator"], "stake": 1 << 62}]}, "less than 2\\^62"),
        ({"accounts": [{"node_id": A, "roles": ["validator"]}]}, "got 0"),
        ({"rules": {"cap_percent": 34}}, r"cap_percent must be an integer in \[1, 33\], got 34"),
        ({"rules": {"cap": 3}}, "rules has an unknown field 'cap'"),
        ({"rules": {"admission": "bribe"}}, "unknown admission 'bribe'; known: pow, stake, invite"),
        ({"rules": {"puzzle": "md5"}}, "unknown puzzle 'md5'"),
        ({"rules": {"min_stake": 101}}, "has stake 100; a validator needs 101"),
        ({"options": {"speed": "high"}}, "unknown option 'speed'"),
        ({"previous": "00"}, "previous must be 64 hexadecimal digits"),
    ],
)
def test_mistakes_cost_one_line(changes, message, tmp_path):
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(content(**changes)))
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_nobody_starts_above_the_cap_or_twice():
    accounts = content()["accounts"]
    accounts[0]["stake"] = 101
    with pytest.raises(ValueError, match="has stake 101 of 301, above cap_percent 25"):
        parse(content(accounts=accounts))
    for changes in ({"node_id": B}, {"key": B}):
        accounts = content()["accounts"]
        accounts[0] |= changes
        with pytest.raises(ValueError, match="share a key"):
            parse(content(accounts=accounts))
    accounts = content()["accounts"]
    accounts[0] |= {"roles": ["trainer"]}
    with pytest.raises(ValueError, match="has stake 100 but not the role validator"):
        parse(content(accounts=accounts))


def test_files_that_are_none(tmp_path):
    with pytest.raises(SetupError, match="cannot be read: No such file"):
        load(tmp_path / "none")
    for text in ("", "[]", "[" * 100_000, "{"):
        (tmp_path / "g").write_text(text)
        with pytest.raises(ConfigError, match=r"genesis .*g: "):
            load(tmp_path / "g")
