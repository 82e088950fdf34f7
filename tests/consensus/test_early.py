from __future__ import annotations

from pydec.consensus.early import EARLY, EARLY_BYTES, STRANGERS, Early
from pydec.consensus.messages import SyncRequest


def test_a_few_messages_of_each_author_wait_and_the_newest_stay():
    early = Early()
    for number in range(3 * EARLY):
        early.keep(b"a", SyncRequest(number), 10, 4)
    early.keep(b"b", SyncRequest(99), 10, 4)
    assert len(early) == EARLY + 1
    taken = [(sender, message) for sender, message, _ in early.take()]
    assert taken[:-1] == [(b"a", SyncRequest(number)) for number in range(2 * EARLY, 3 * EARLY)]
    assert taken[-1] == (b"b", SyncRequest(99))
    assert len(early) == 0


def test_bytes_and_authors_are_bounded():
    early = Early()
    for _ in range(EARLY):
        early.keep(b"a", SyncRequest(1), EARLY_BYTES // 2, 4)
    assert len(early) == 2
    for number in range(3 * STRANGERS):
        early.keep(number.to_bytes(2, "big"), SyncRequest(1), 10, 4)
    assert len(early) == 2 + 4 + STRANGERS - 1
