"""The frame header: one encoding per value, and no bytes that crash it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into, unpack
from pydec.comm.transport import Stream
from pydec.errors import FrameError

U8, U16, U32, U62 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 62))
FRAME = Frame(Kind.GOSSIP, sender=3, round=7, bucket=1, buckets=4, offset=100, count=50, length=5)


@st.composite
def frames(draw):
    buckets = draw(st.integers(1, 2**32 - 1))
    return Frame(
        kind=draw(st.sampled_from(Kind)),
        sender=draw(U32),
        round=draw(st.integers(0, 2**64 - 1)),
        bucket=draw(st.integers(0, buckets - 1)),
        buckets=buckets,
        offset=draw(U62),
        count=draw(U62),
        length=draw(st.integers(0, 300)),
        wire_id=draw(U8),
        epoch=draw(U32),
        stream=draw(st.sampled_from(Stream)),
        flags=draw(U16),
    )


def message(frame: Frame) -> bytearray:
    buffer = bytearray(HEADER_BYTES + frame.length)
    pack_into(buffer, frame)
    return buffer


@given(frames())
def test_every_frame_survives_the_wire(frame):
    assert unpack(message(frame)) == frame


@given(st.binary(max_size=200))
def test_any_bytes_give_a_frame_or_a_frame_error(data):
    try:
        unpack(data)
    except FrameError:
        pass


@given(frames(), st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_is_an_error_or_another_frame_with_one_encoding(frame, position, change):
    data = message(frame)
    data[position] ^= change
    try:
        other = unpack(data)
    except FrameError:
        return
    assert other != frame
    assert message(other) == data


def test_header_lies_in_front_of_the_payload():
    array = np.arange(HEADER_BYTES + 5, dtype=np.uint8)
    pack_into(array, FRAME)
    assert array[HEADER_BYTES:].tolist() == [64, 65, 66, 67, 68]
    assert bytes(array[:6]) == b"pydc\x01\x01"


@pytest.mark.parametrize("length", [0, 63, 64, 68, 70])
def test_a_message_of_another_length_is_refused(length):
    with pytest.raises(FrameError, match="bytes"):
        unpack((message(FRAME) + bytearray(10))[:length])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bucket": 4}, "bucket 4 of 4"),
        ({"buckets": 0}, "bucket 1 of 0"),
        ({"sender": -1}, "sender"),
        ({"round": 2**64}, "round"),
        ({"wire_id": 256}, "wire_id"),
        ({"offset": 2**62, "count": 2**62}, "element"),
    ],
)
def test_impossible_fields_are_refused(change, words):
    with pytest.raises(FrameError, match=words):
        Frame(**{**FRAME.__dict__, **change})


def test_a_short_buffer_is_refused():
    with pytest.raises(FrameError, match="64 bytes, got 10"):
        pack_into(bytearray(10), FRAME)
