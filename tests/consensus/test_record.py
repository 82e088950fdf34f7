from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.consensus.messages import Proposal, Timeout, Vote, encode
from pydec.consensus.record import MAX_BLOCKS, SafetyRecord
from pydec.consensus.signed import Kind
from pydec.errors import FrameError

from .samples import CHAIN, block, keys_and_table, quorum_certificate, timeout_certificate

KEYS, TABLE = keys_and_table([1] * 4)
BLOCK = block(None, (b"pay",))
QC = quorum_certificate(KEYS, TABLE, [0, 1, 2], Kind.PREPARE, 3, BLOCK.header.hash())
TC = timeout_certificate(KEYS, TABLE, {0: 3, 1: -1, 2: 0}, round=4)


def full():
    record = SafetyRecord(CHAIN, 0, 1, high=QC, ended=TC, justification=QC)
    record.proposal = encode(Proposal(0, 1, 5, BLOCK.encode(), TC, QC, bytes(64)), CHAIN)
    record.prepare = encode(Vote(Kind.PREPARE, 0, 1, 5, QC.block_hash, 2, bytes(64)), CHAIN)
    record.commit = encode(Vote(Kind.COMMIT, 0, 1, 3, QC.block_hash, 2, bytes(64)), CHAIN)
    record.timeout = encode(Timeout(0, 1, 4, 3, 2, bytes(64), QC, None), CHAIN)
    record.proposed, record.prepared, record.committed, record.timed_out = 5, 5, 3, 4
    record.keep(QC.block_hash, BLOCK.encode())
    return record


@pytest.mark.parametrize("record", [SafetyRecord(CHAIN, 0, 1), full()])
def test_a_record_comes_back_with_the_rounds_of_its_messages(record):
    assert SafetyRecord.decode(record.encode(), CHAIN) == record
    for at in range(len(record.encode())):
        with pytest.raises(FrameError):
            SafetyRecord.decode(record.encode()[:at], CHAIN)


def test_records_of_other_chains_and_heights_are_refused():
    with pytest.raises(FrameError, match="of chain"):
        SafetyRecord.decode(full().encode(), bytes(32))
    record = full()
    record.height = 2
    with pytest.raises(FrameError, match="holds Proposal"):
        SafetyRecord.decode(record.encode(), CHAIN)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_any_bytes_are_a_record_or_a_frame_error(at, flip):
    data = bytearray(full().encode())
    data[at % len(data)] ^= flip
    try:
        assert SafetyRecord.decode(bytes(data), CHAIN) != full()
    except FrameError:
        pass


def test_blocks_are_bounded_and_certified_ones_stay():
    record = full()
    for k in range(3 * MAX_BLOCKS):
        record.keep(k.to_bytes(32, "big"), b"block")
    assert len(record.blocks) == MAX_BLOCKS
    assert QC.block_hash in record.blocks
