from __future__ import annotations

import pytest

from pydec.codec.wire import Reader, u32
from pydec.consensus import offers
from pydec.consensus.offers import AskPieces, Manifest, Piece
from pydec.consensus.state import streams
from pydec.errors import FrameError

from .samples import CHAIN


def test_a_manifest_is_read_within_its_bounds():
    manifest = Manifest.of([[b"one", b"two"]] + [[b""]] * (streams.PARTS - 1))
    assert len(manifest.pieces) == streams.PARTS + 1
    reader = Reader(manifest.encode(), "a manifest")
    assert Manifest.read(reader) == manifest
    reader.end()
    for data, message in [
        (u32(0), "a part of a snapshot without pieces"),
        (u32(offers.MOST_PIECES + 1), f"at most {offers.MOST_PIECES} are allowed"),
        (u32(offers.MOST_PIECES) + bytes(32 * offers.MOST_PIECES) + u32(1), "at most 0 are allowed"),
        (u32(2) + bytes(63), "ends after"),
    ]:
        with pytest.raises(FrameError, match=message):
            Manifest.read(Reader(data, "a manifest"))


def test_messages_of_others_are_refused():
    data = offers.encode(AskPieces(7, 1), CHAIN)
    assert offers.decode(data, CHAIN) == AskPieces(7, 1)
    for wrong, message in [
        (data[:2] + bytes(8) + data[10:], "a message of chain 0000"),
        (bytes([1]) + data[1:], "begins with bytes 1 and 6, which none does"),
        (data[:1] + b"\x63" + data[2:], "begins with bytes 163 and 99"),
        (data + b"\0", "after its end"),
        (bytes(1 << 21), "at most"),
    ]:
        with pytest.raises(FrameError, match=message):
            offers.decode(wrong, CHAIN)
    piece = Piece(7, 1, bytes(streams.PIECE_BYTES))
    assert offers.decode(offers.encode(piece, CHAIN), CHAIN) == piece
    with pytest.raises(FrameError, match="claims a part"):
        offers.decode(offers.encode(Piece(7, 1, bytes(streams.PIECE_BYTES + 1)), CHAIN), CHAIN)
