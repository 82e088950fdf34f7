"""Messages in pieces: they arrive whole whatever the network does, and never cost more than their share."""

from __future__ import annotations

import struct

import pytest

from pydec.comm.buffers import POST_LIMIT
from pydec.comm.local import LocalCluster
from pydec.comm.mail import Mail
from pydec.comm.transport import Stream
from pydec.errors import PeerTimeout

MOST = 1 << 20
SIZES = [0, 1, 3000, POST_LIMIT - 2, POST_LIMIT - 1, POST_LIMIT, POST_LIMIT + 1, 200_000, MOST]


class Link:
    """A stream whose posts come back to its own poll, until its queue is full."""

    def __init__(self, room: int = 1000) -> None:
        self.room, self.posted = room, []

    def post(self, peer: int, data: bytes) -> None:
        if len(self.posted) == self.room:
            raise PeerTimeout(peer, "has not taken its messages")
        self.posted.append((peer, data))

    def poll(self):
        return self.posted.pop(0) if self.posted else None


def contents(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


@pytest.mark.parametrize(
    "faults", [{}, {"delay_s": (0.0, 0.01), "reorder": 0.2}, {"delay_s": 0.001, "duplicate": 0.3}]
)
def test_messages_of_any_size_arrive_whole(faults) -> None:
    def program(transport):
        mail = Mail(transport.stream(Stream.LEDGER), MOST)
        arrived = set()
        for size in SIZES:  # one at a time: of many at once a reordering network may cost some
            mail.send(1 - transport.rank, contents(size))
            until_s = transport.now() + 1.0
            while transport.now() < until_s:
                note = mail.receive()
                if note is not None:
                    assert note == (1 - transport.rank, contents(len(note[1])))
                    arrived.add(len(note[1]))
        assert not mail.lost
        return arrived, mail.refused.total()

    for arrived, refused in LocalCluster(2, **faults).run(program):
        assert arrived == set(SIZES)
        assert refused == 0


def test_a_full_queue_loses_its_own_messages_and_raises_nothing() -> None:
    link = Link(room=3)
    mail = Mail(link, MOST)
    assert mail.send(1, b"small")
    assert not mail.send(1, contents(MOST))
    assert not mail.send(1, b"small")
    assert mail.lost == {1: 2}
    assert mail.receive() == (1, b"small")
    assert mail.receive() is None
    assert mail.send(1, contents(100_000))
    assert mail.receive() == (1, contents(100_000))


def test_what_a_peer_leaves_unfinished_is_bounded() -> None:
    link = Link()
    mail = Mail(link, MOST)
    head = struct.Struct("<BIHH")
    for number in range(100):
        link.post(1, head.pack(1, number, 0, 2) + bytes(POST_LIMIT - head.size))
    assert mail.receive() is None
    assert sum(len(parts) for parts in mail._unfinished[1].values()) == 2
    assert mail.send(1, contents(MOST))
    assert mail.receive() == (1, contents(MOST))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x07" + bytes(20),
        struct.pack("<BIHH", 1, 0, 0, 0) + b"x",
        struct.pack("<BIHH", 1, 0, 2, 2) + b"x",
        struct.pack("<BIHH", 1, 0, 0, 2) + b"short",
        struct.pack("<BIHH", 1, 0, 0, 65535) + bytes(POST_LIMIT - 9),
    ],
)
def test_pieces_that_cannot_be_right_are_refused(data) -> None:
    link = Link()
    mail = Mail(link, MOST)
    link.post(3, data)
    assert mail.receive() is None
    assert mail.refused == {3: 1}
    assert not mail._unfinished


def test_a_message_longer_than_allowed_is_refused_on_both_sides() -> None:
    link = Link()
    with pytest.raises(ValueError, match="at most 1048576 bytes, got 1048577"):
        Mail(link, MOST).send(0, bytes(MOST + 1))
    Mail(link, 2 * MOST).send(0, bytes(MOST + 1))
    small = Mail(link, MOST)
    assert small.receive() is None
    assert small.refused[0] > 0
