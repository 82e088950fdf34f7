"""New handshakes in the middle of a run: with losses, strangers and nonsense, while messages go on."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import pytest

from pydec.comm import identity
from pydec.comm.renewal import Renewal
from pydec.comm.sessions import Sessions
from pydec.comm.transport import Stream
from pydec.crypto.handshake import Secrets
from pydec.crypto.seal import Limits
from pydec.crypto.signing import SigningKey
from pydec.crypto.suites import Suite

KEYS = [SigningKey(bytes([n]) * 32) for n in (1, 2, 3)]


@dataclass
class Pair:
    """Two ranks that shook hands once; messages of handshakes wait in ``posted``, as (receiver, message)."""

    keys: tuple[SigningKey, SigningKey] = (KEYS[0], KEYS[1])
    now_s: float = 0.0
    posted: deque[tuple[int, bytes]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.sessions, self.renewals = [], []
        for rank in (0, 1):
            peer = 1 - rank
            made = Secrets(Suite.AES_256_GCM, bytes([rank]) * 32, bytes([peer]) * 32, KEYS[peer].public)
            mine = Sessions(rank, 2, 0, {peer: made}, {}, Limits(fresh_s=3600.0))
            who = identity.Identity(self.keys[rank], lambda rank, key: None, True, "")
            self.sessions.append(mine)
            self.renewals.append(
                Renewal(mine, who, lambda peer, data: self.posted.append((peer, data)), lambda: self.now_s)
            )

    def pass_on(self, lose: int = -1) -> int:
        """Let time come for a handshake, and deliver all messages but one; how many there were."""
        count = 0
        for renewal in self.renewals:
            renewal.turn()
        while self.posted:
            peer, data = self.posted.popleft()
            if count != lose:
                self.renewals[peer].hear(1 - peer, data)
            self.check()
            count += 1
        return count

    def check(self) -> None:
        """Messages go both ways."""
        for rank, mine in enumerate(self.sessions):
            sealer, _ = mine.ends(1 - rank, Stream.GOSSIP)
            _, opener = self.sessions[1 - rank].ends(rank, Stream.GOSSIP)
            sealed, into = bytearray(sealer.size(5)), bytearray(5)
            sealer.seal_into(1, memoryview(b"hello"), memoryview(sealed))
            assert opener.open_into(1, memoryview(sealed), memoryview(into)) == 5
            assert into == b"hello"

    def secrets(self) -> list[bytes]:
        return [end._key._secret for mine in self.sessions for end in mine.ends(1 - mine.rank, Stream.GOSSIP)]


def test_nothing_is_said_before_it_is_time_and_all_keys_are_new_afterwards():
    pair = Pair()
    before = pair.secrets()
    pair.now_s = 3599.0
    assert pair.pass_on() == 0
    pair.now_s = 3600.0
    assert pair.pass_on() == 5
    assert [mine.number(1 - rank) for rank, mine in enumerate(pair.sessions)] == [1, 1]
    assert not set(before) & set(pair.secrets())
    assert all(end.ratchets == 0 for end in pair.sessions[0].ends(1, Stream.GOSSIP))
    pair.now_s = 3700.0
    assert pair.pass_on() == 0
    pair.now_s = 7200.0
    assert pair.pass_on() == 5


@pytest.mark.parametrize("lost", range(5))
def test_a_handshake_that_loses_a_message_is_tried_again(lost):
    pair = Pair()
    before = set(pair.secrets())
    pair.now_s = 3600.0
    assert pair.pass_on(lose=lost) == lost + 1
    pair.now_s = 7200.0
    assert pair.pass_on() == 5
    assert not before & set(pair.secrets())
    assert all(not mine.refused for mine in pair.sessions)


def test_who_stole_session_keys_but_no_identity_key_cannot_renew_them():
    pair = Pair(keys=(KEYS[0], KEYS[2]))
    before = pair.secrets()
    pair.now_s = 3600.0
    pair.pass_on()
    assert pair.secrets() == before
    assert pair.sessions[0].refused == {(1, "handshake"): 1}


def test_nonsense_is_counted_and_messages_go_on():
    pair = Pair()
    pair.now_s = 3600.0
    for message in (b"", bytes(5), b"\1\0\0\0\0" + bytes(99)):
        pair.posted.append((1, message))
    assert pair.pass_on() == 3 + 5
    assert pair.sessions[1].refused == {(0, "handshake"): 3}
    assert pair.sessions[1].number(0) == 1
