from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.consensus.block import (
    MAX_BLOCK_BYTES,
    Block,
    Header,
    block_hash,
    packed_bytes,
    room_for_transactions,
    transactions_root,
)
from pydec.consensus.signed import Kind
from pydec.errors import FrameError

from .samples import block, header, keys_and_table, quorum_certificate

KEYS, TABLE = keys_and_table([1] * 4)
COMMIT = quorum_certificate(KEYS, TABLE, [0, 1, 2])
BLOCK = block(COMMIT, (b"pay", b"", b"more"))


def test_every_field_is_hashed():
    base = header(COMMIT)
    changes = {
        "chain_id": b"x" * 32,
        "epoch": 1,
        "height": 9,
        "parent_hash": b"x" * 32,
        "last_commit": dataclasses.replace(COMMIT, round=1),
        "tx_root": b"x" * 32,
        "state_root": b"x" * 32,
        "next_validators_hash": b"x" * 32,
        "origin_round": 1,
        "origin_proposer": 1,
        "version": 2,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Header)}
    hashes = {base.hash()} | {dataclasses.replace(base, **{name: to}).hash() for name, to in changes.items()}
    assert len(hashes) == len(changes) + 1


def test_the_header_covers_the_transactions():
    BLOCK.check_body()
    assert block_hash(BLOCK) == BLOCK.header.hash()
    for other in ((b"pay", b"more"), (b"pay", b"", b"mor"), (b"more", b"", b"pay"), (b"paymore", b"", b"")):
        with pytest.raises(ValueError, match="not its header's"):
            dataclasses.replace(BLOCK, transactions=other).check_body()
        assert transactions_root(other) != BLOCK.header.tx_root


def test_the_largest_block_fits_and_one_byte_more_does_not():
    top = header(COMMIT)
    room = room_for_transactions(top)
    transactions = (bytes(room - 4 - 5), b"x")
    assert packed_bytes(transactions) == room
    full = Block(top, transactions).encode()
    assert len(full) == MAX_BLOCK_BYTES
    assert Block.decode(full).transactions == transactions
    with pytest.raises(FrameError, match="at most 1048576"):
        Block.decode(Block(top, (transactions[0] + b"x", b"x")).encode())


@given(st.lists(st.binary(max_size=20), max_size=5), st.booleans(), st.integers(0, 9))
def test_a_block_comes_back(transactions, first, round):
    made = block(None if first else COMMIT, tuple(transactions))
    made = dataclasses.replace(made, header=dataclasses.replace(made.header, origin_round=round))
    assert Block.decode(made.encode()) == made


def test_a_changed_block_does_not_come_back():
    data = BLOCK.encode()
    for at in range(len(data)):
        for other in (data[:at], data[:at] + bytes((data[at] ^ 0x80,)) + data[at + 1 :]):
            try:
                assert Block.decode(other) != BLOCK
            except FrameError:
                pass
    with pytest.raises(FrameError):
        Block.decode(data + b"\0")


@given(st.binary(max_size=400))
def test_any_bytes_are_a_block_or_a_frame_error(data):
    for cls in (Block, Header):
        for full in (data, b"\0\1" + data):
            try:
                made = cls.decode(full)
            except FrameError:
                continue
            assert made.encode() == full


def test_a_prepare_certificate_in_the_header_is_still_only_bytes():
    """Decoding accepts it, and the replica's verification of ``last_commit`` does not."""
    prepare = quorum_certificate(KEYS, TABLE, [0, 1, 2], kind=Kind.PREPARE)
    assert Header.decode(header(prepare).encode()).last_commit == prepare
