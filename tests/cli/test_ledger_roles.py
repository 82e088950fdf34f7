"""pydec ledger grant and revoke: what an admin signs, and what is refused in one line."""

from __future__ import annotations

import json

import pytest

from pydec.cli.main import main
from pydec.consensus import inbox
from pydec.consensus.file_storage import KEY_FILE, FileStorage, create
from pydec.consensus.node import founders
from pydec.consensus.roles import Role
from pydec.consensus.transactions import Config, Grant, Revoke
from pydec.crypto import keyfile
from pydec.crypto.signing import SigningKey

KEYS = [SigningKey(bytes([number]) * 32) for number in (1, 2)]
STRANGER = SigningKey(bytes([9]) * 32).public.hex()


@pytest.fixture
def ledger(tmp_path):
    """The ledgers of two ranks with their keys; rank 0 is the admin."""
    for rank, key in enumerate(KEYS):
        directory = tmp_path / "L" / f"rank-{rank}"
        directory.mkdir(parents=True)
        create(directory, founders("test", [key.public for key in KEYS]))
        keyfile.create(directory / KEY_FILE, key)
        FileStorage(directory, key.public).close()
    return tmp_path / "L"


def test_an_admin_s_words_are_signed_one_after_the_other(ledger, capsys):
    assert main(["ledger", "grant", str(ledger), STRANGER, "observer", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["identity"], told["roles"], told["by"]) == (STRANGER, ["observer"], KEYS[0].public.hex())
    assert main(["ledger", "revoke", str(ledger), "rank:1", "trainer", "validator"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"revoke        trainer, validator from {KEYS[1].public.hex()}\nby            ")
    first, second = inbox.waiting(ledger / "rank-0")
    assert (first.sequence, first.body) == (0, Grant(bytes.fromhex(STRANGER), int(Role.OBSERVER)))
    assert (second.sequence, second.body) == (1, Revoke(KEYS[1].public, int(Role.TRAINER | Role.VALIDATOR)))
    chain_id = founders("test", [key.public for key in KEYS]).chain_id
    for transaction in (first, second):
        transaction.verify(chain_id)


def test_an_admin_sets_options(ledger, capsys):
    assert main(["ledger", "config", str(ledger), "f=1", "admission=invite"]) == 0
    assert capsys.readouterr().out.startswith("config        f=1, admission=invite\nby            ")
    assert main(["ledger", "config", str(ledger), "f=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == {"f": "2"}
    first, second = inbox.waiting(ledger / "rank-0")
    assert first.body == Config((("admission", "invite"), ("f", "1")))
    assert (second.body, second.sequence) == (Config((("f", "2"),)), 1)


def test_what_follows_from_what_waits_is_judged_after_it(ledger, capsys):
    words = ["ledger", "grant", str(ledger), STRANGER, "observer"]
    assert main(words) == 0
    assert main(words) == 1
    assert "has observer already" in capsys.readouterr().err
    assert len(inbox.waiting(ledger / "rank-0")) == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["grant", "L", "rank:1"], 2, "say who and which roles"),
        (["grant", "L", "rank:1", "king"], 2, "unknown role 'king'"),
        (["grant", "L", "rank:7", "observer"], 2, "0 accounts of the ledger are called 'rank:7'"),
        (["revoke", "L", STRANGER, "observer"], 2, "0 accounts of the ledger"),
        (["grant", "L", "rank:1", "trainer"], 1, "has trainer already"),
        (["revoke", "L", "rank:0", "admin"], 1, "is the last admin"),
        (
            ["grant", "L", "rank:1", "admin", "--key", "L/rank-1/key.json"],
            1,
            "may not grant roles: it needs the role",
        ),
        (["grant", "L", "rank:1", "admin", "--key", "L/none.json"], 1, "none.json"),
        (["verify", "L", "--key", "x"], 2, "takes a directory and no role or key"),
        (["config", "L"], 2, "say which options"),
        (["config", "L", "speed=9"], 2, "expected NAME=VALUE, with NAME one of admission, algorithm"),
        (["config", "L", "f"], 2, "expected f=a whole number in [0, 65536], got f="),
        (
            ["config", "L", "admission=free"],
            2,
            "expected admission=pow or stake or invite, got admission=free",
        ),
        (
            ["config", "L", "f=1", "--key", "L/rank-1/key.json"],
            1,
            "may not change options: it needs the role admin",
        ),
    ],
)
def test_what_is_refused_costs_one_line_and_nothing_is_laid_down(
    ledger, words, status, said, monkeypatch, capsys
):
    monkeypatch.chdir(ledger.parent)
    assert main(["ledger", *words]) == status
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert not (ledger / "rank-0/inbox").exists()
