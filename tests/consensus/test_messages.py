from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pydec.consensus import messages
from pydec.consensus.messages import (
    MAX_MESSAGE_BYTES,
    BlockBody,
    Decision,
    GetBlock,
    Head,
    NewRound,
    Proposal,
    SyncRequest,
    Timeout,
    Transaction,
    Vote,
)
from pydec.consensus.signed import Kind
from pydec.errors import FrameError

from .samples import CHAIN, block, keys_and_table, quorum_certificate, timeout_certificate

KEYS, TABLE = keys_and_table([1] * 4)
QC = quorum_certificate(KEYS, TABLE, [0, 1, 2], kind=Kind.PREPARE)
TC = timeout_certificate(KEYS, TABLE, {0: 0, 1: -1, 2: -1})
BLOCK = block(None, (b"pay",)).encode()
SIGNATURE = b"s" * 64
SAMPLES = [
    Proposal(0, 1, 0, BLOCK, None, None, SIGNATURE),
    Proposal(0, 1, 1, BLOCK, TC, QC, SIGNATURE),
    Vote(Kind.PREPARE, 0, 1, 0, b"h" * 32, 3, SIGNATURE),
    Vote(Kind.COMMIT, 9, 8, 7, b"h" * 32, 65535, SIGNATURE),
    Timeout(0, 1, 0, -1, 2, SIGNATURE, None, None),
    Timeout(0, 1, 1, 0, 2, SIGNATURE, QC, TC),
    NewRound(1, TC, None),
    NewRound(1, TC, QC),
    Decision(1, QC, BLOCK),
    SyncRequest(1 << 63),
    GetBlock(1, b"h" * 32),
    BlockBody(1, BLOCK),
    Transaction(b""),
    Head(3, 4, b"h" * 32),
]


@pytest.mark.parametrize("message", SAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_and_a_changed_one_does_not(message):
    data = messages.encode(message, CHAIN)
    assert messages.decode(data, CHAIN) == message
    for at in range(len(data)):
        for other in (data[:at], data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]):
            try:
                assert messages.decode(other, CHAIN) != message
            except FrameError:
                pass
    with pytest.raises(FrameError, match="after its end"):
        messages.decode(data + b"\0", CHAIN)


def test_every_type_is_sampled():
    assert {type(message) for message in SAMPLES} == set(messages._TYPES.values())


@given(st.integers(0, 12), st.binary(max_size=500))
@example(5, b"")
def test_any_bytes_are_a_message_or_a_frame_error(kind, data):
    for whole in (data, bytes((messages.VERSION, kind)) + CHAIN[:8] + data):
        try:
            message = messages.decode(whole, CHAIN)
        except FrameError:
            continue
        assert messages.encode(message, CHAIN) == whole


@given(st.sampled_from(SAMPLES), st.data())
def test_spliced_messages_are_messages_or_frame_errors(message, data):
    """Halves of real messages get further into the decoders than noise does."""
    one = messages.encode(message, CHAIN)
    other = messages.encode(data.draw(st.sampled_from(SAMPLES)), CHAIN)
    cut, paste = data.draw(st.integers(0, len(one))), data.draw(st.integers(0, len(other)))
    spliced = one[:cut] + other[paste:]
    try:
        decoded = messages.decode(spliced, CHAIN)
    except FrameError:
        return
    assert messages.encode(decoded, CHAIN) == spliced


def test_other_chains_versions_and_giants_are_refused():
    data = messages.encode(SAMPLES[2], CHAIN)
    with pytest.raises(FrameError, match="of chain"):
        messages.decode(data, bytes(32))
    with pytest.raises(FrameError, match="version 2"):
        messages.decode(b"\2" + data[1:], CHAIN)
    with pytest.raises(FrameError, match="unknown type 99"):
        messages.decode(b"\1\x63" + data[2:], CHAIN)
    with pytest.raises(FrameError, match="at most"):
        messages.decode(bytes(MAX_MESSAGE_BYTES + 1), CHAIN)


def test_a_vote_is_small():
    assert len(messages.encode(SAMPLES[2], CHAIN)) <= 150
