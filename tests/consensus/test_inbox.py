"""What is laid into a node's inbox is committed and removed, or refused with the reason; nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from pydec.comm.local import solo
from pydec.consensus import inbox
from pydec.consensus.file_storage import create
from pydec.consensus.inbox import Inbox
from pydec.consensus.node import founders, open_node
from pydec.consensus.roles import Role
from pydec.consensus.transactions import Grant, Revoke, sign
from pydec.crypto.signing import SigningKey
from pydec.errors import SetupError

ADMIN, OTHER = SigningKey(bytes([1]) * 32), SigningKey(bytes([2]) * 32)
GENESIS = founders("test", [ADMIN.public])


def grant(number: int, role: Role, key: SigningKey = ADMIN) -> bytes:
    return sign(key, GENESIS.chain_id, number, Grant(OTHER.public, int(role)))


def test_what_lies_there_is_committed_in_order_and_what_cannot_be_says_why(tmp_path):
    create(tmp_path, GENESIS)
    good = [
        inbox.put(tmp_path, grant(number, role)) for number, role in enumerate((Role.OBSERVER, Role.TRAINER))
    ]
    foreign = inbox.put(tmp_path, sign(OTHER, GENESIS.chain_id, 0, Revoke(ADMIN.public, int(Role.TRAINER))))
    junk = tmp_path / "inbox" / "junk.tx"
    junk.write_bytes(b"?")
    (tmp_path / "inbox" / "long.tx").write_bytes(bytes(1 << 18))
    assert [(t.sender, t.sequence) for t in inbox.waiting(tmp_path)] == sorted(
        [(ADMIN.public, 0), (ADMIN.public, 1), (OTHER.public, 0)]
    )
    with open_node(solo(), tmp_path, ADMIN, start=False) as node:
        box = Inbox(tmp_path)
        futures = box.look(node, 1.0)
        assert len(futures) == 3
        assert box.look(node, 1.5) == []  # at most once a second
        for _ in range(20):
            node.tick()
        box.look(node)
        account = node.state.accounts[OTHER.public]
        assert Role(account.granted) == Role.OBSERVER | Role.TRAINER
        assert not any(path.exists() for path in (*good, foreign, junk))
        assert sorted(path.name for path in (tmp_path / "inbox").iterdir()) == sorted(
            [foreign.with_suffix(".refused").name, "junk.refused", "long.refused"]
        )
        assert "no transaction is of kind" in junk.with_suffix(".refused").read_text()
        again = inbox.put(tmp_path, grant(0, Role.OBSERVER))
        box.look(node)
        assert "its number has been used" in again.with_suffix(".refused").read_text()


def test_a_node_that_has_no_inbox_finds_nothing(tmp_path):
    create(tmp_path, GENESIS)
    with open_node(solo(), tmp_path, ADMIN, start=False) as node:
        assert Inbox(tmp_path).look(node) == []
    assert inbox.waiting(tmp_path) == []


def test_an_inbox_that_cannot_be_written_is_named():
    with pytest.raises(SetupError, match=r"none/inbox/\w+\.tx cannot be written"):
        inbox.put(Path("none"), b"x")
