from __future__ import annotations

import pytest

from pydec.codec.wire import Reader, blob, blobs, checked, i32, optional, u16, u32, u64
from pydec.errors import FrameError


def test_what_was_written_is_read():
    data = (
        u16(7) + u32(1 << 30) + u64((1 << 64) - 1) + i32(-1) + blob(b"abc") + optional(None) + optional(b"")
    )
    reader = Reader(data + blobs([b"", b"xy"]) + u32(5), "a sample")
    assert (reader.u16(), reader.u32(), reader.u64(), reader.i32()) == (7, 1 << 30, (1 << 64) - 1, -1)
    assert (reader.blob(3), reader.optional(0), reader.optional(0)) == (b"abc", None, b"")
    assert [reader.blob(2) for _ in range(reader.count(2))] == [b"", b"xy"]
    assert reader.round() == 5
    reader.end()


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"", Reader.u8),
        (b"\0", Reader.u16),
        (b"\0\0\0", Reader.u32),
        (b"\xff\xff\xff\xff", Reader.round),
        (u32(4) + b"abcd", lambda reader: reader.blob(3)),
        (u32(4) + b"abc", lambda reader: reader.blob(4)),
        (u32(1 << 31), lambda reader: reader.count(1 << 20)),
        (b"\2", lambda reader: reader.optional(9)),
        (b"\0", Reader.end),
    ],
)
def test_what_does_not_fit_is_a_frame_error(data, read):
    with pytest.raises(FrameError, match="a sample"):
        read(Reader(data, "a sample"))


def test_values_that_cannot_be_are_frame_errors():
    with pytest.raises(FrameError, match="an address"):
        checked("an address", str, b"\xff", "utf-8")
