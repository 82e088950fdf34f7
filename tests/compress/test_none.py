from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.errors import FrameError

NONE = compress.make("none")


def test_payload_is_pinned():
    payload = NONE.encode(np.array([1.0, -2.0], np.float32))
    assert payload.hex() == "01010100" + "00000000" + "0200000000000000" + "0000803f" + "000000c0"


def test_every_bit_pattern_passes_through():
    bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 0x00000001, 0x7F7FFFFF], np.uint32)
    decoded = NONE.decode(NONE.encode(bits.view(np.float32)), np.empty(5, np.float32))
    np.testing.assert_array_equal(decoded.view(np.uint32), bits)


def test_view_shares_memory_and_is_read_only():
    payload = np.frombuffer(NONE.encode(np.arange(5, dtype=np.float32)), np.uint8).copy()
    view = NONE.view(payload, 5)
    np.testing.assert_array_equal(view, np.arange(5))
    assert np.shares_memory(view, payload)
    assert not view.flags.writeable
    assert payload.flags.writeable
    with pytest.raises(FrameError, match="n=5 elements, expected n=4"):
        NONE.view(payload, 4)


@pytest.mark.parametrize("spec", ["int8", "topk"])
def test_lossy_payloads_cannot_be_viewed(spec):
    compressor = compress.make(spec)
    with pytest.raises(TypeError, match="use decode"):
        compressor.view(compressor.encode(np.ones(3, np.float32)), 3)
