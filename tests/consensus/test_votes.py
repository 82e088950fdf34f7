from __future__ import annotations

from pydec.consensus.signed import Kind
from pydec.consensus.votes import TimeoutTally, VoteTally

from .samples import keys_and_table

_, TABLE = keys_and_table([4, 3, 2, 1])
A, B = b"a" * 32, b"b" * 32


def test_a_quorum_by_stake_makes_one_certificate_for_one_block():
    tally = VoteTally(Kind.PREPARE, TABLE, 5)
    assert tally.add(0, 0, A, b"0" * 64) is None
    assert tally.add(0, 1, B, b"1" * 64) is None
    assert tally.add(0, 2, A, b"2" * 64) is None  # 6 of 10
    assert not tally.done(0)
    certificate = tally.add(0, 3, A, b"3" * 64)  # 7 of 10
    assert certificate is not None
    assert (certificate.signers(), certificate.block_hash, certificate.height) == ([0, 2, 3], A, 5)
    assert tally.done(0)
    assert not tally.done(1)
    assert (tally.voted(0, 1), tally.voted(1, 1)) == (B, None)


def test_rounds_are_counted_apart_and_forgotten():
    tally = VoteTally(Kind.COMMIT, TABLE, 5)
    for round in range(10):
        tally.add(round, 0, A, b"0" * 64)
        tally.add(round, 1, B, b"0" * 64)
    assert len(tally) == 20
    tally.forget(8)
    assert len(tally) == 4
    assert tally.voted(7, 0) is None


def test_timeouts_make_a_certificate_of_all_that_have_come():
    tally = TimeoutTally(TABLE, 5)
    assert tally.add(2, 3, -1, b"3" * 64) is None
    assert tally.add(2, 0, 1, b"0" * 64) is None
    assert (tally.weight(2), tally.weight(1), tally.said(2, 0), tally.said(2, 1)) == (5, 0, 1, None)
    certificate = tally.add(2, 2, 0, b"2" * 64)
    assert certificate is not None
    assert certificate.votes == ((0, 1, b"0" * 64), (2, 0, b"2" * 64), (3, -1, b"3" * 64))
    assert certificate.high_round == 1
    tally.forget(3)
    assert len(tally) == 0
