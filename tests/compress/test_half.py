from __future__ import annotations

import struct

import numpy as np
import pytest

from pydec import compress
from pydec.errors import FrameError

HALVES = ["bf16", "fp16"]


def header(wire_id, n):
    return struct.pack("<BBBBIQ", wire_id, 1, 1, 0, 0, n)


def test_payloads_are_pinned():
    x = np.array([1.0, -2.0, 3.140625], np.float32)
    assert compress.make("bf16").encode(x) == header(4, 3) + struct.pack("<3H", 0x3F80, 0xC000, 0x4049)
    assert compress.make("fp16").encode(x) == header(5, 3) + struct.pack("<3H", 0x3C00, 0xC000, 0x4248)


@pytest.mark.parametrize(("name", "steps"), [("bf16", 128), ("fp16", 1024)])
def test_contraction_is_tight(name, steps):
    compressor = compress.make(name)
    x = np.full(10, 1 + 1 / (2 * steps), np.float32)  # half-way above 1, the worst place of a binade
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    ratio = np.sum((x - y) ** 2, dtype=np.float64) / np.sum(x**2, dtype=np.float64)
    assert ratio == pytest.approx(1 - compressor.delta(10), rel=1e-4)


def test_what_is_too_large_is_refused_with_a_way_out():
    x = np.ones(100, np.float32)
    x[[3, 4]] = 65520, -1e9
    with pytest.raises(
        ValueError, match=r"fp16 cannot encode 2 of 100 .* reach 1e\+09, .* is 65504; .* bf16"
    ):
        compress.make("fp16").encode(x)
    compress.make("bf16").encode(x)
    x[3] = 3.4e38
    with pytest.raises(ValueError, match=r"bf16 cannot encode 1 of 100 elements"):
        compress.make("bf16").encode(x)


def test_a_failed_feedback_keeps_the_residual_of_what_is_too_large():
    x, residual = np.full(100, 3.0, np.float32), np.full(100, 0.25, np.float32)
    x[7] = 70000.0
    with pytest.raises(ValueError, match="fp16 cannot encode 1 of 100"):
        compress.make("fp16").encode_feedback_into(x, residual, np.empty(216, np.uint8))
    np.testing.assert_array_equal(residual, np.full(100, 0.25))


def test_fp16_loses_what_is_small_as_it_says():
    x = np.array([2.9e-8, 3.1e-8, 1e-6], np.float32)
    y = compress.make("fp16").decode(compress.make("fp16").encode(x), np.empty_like(x))
    assert y[0] == 0.0
    assert np.all(np.abs(x - y) <= 3e-8)


@pytest.mark.parametrize(
    ("name", "codes"), [("bf16", (0x7F80, 0xFF80, 0x7FC1)), ("fp16", (0x7C00, 0xFC00, 0x7E01))]
)
def test_infinity_and_nan_are_refused_by_the_decoder(name, codes):
    payload = compress.make(name).encode(np.zeros(3, np.float32))
    with pytest.raises(FrameError, match=f"{name} payload has 3 NaN or infinite values"):
        compress.make(name).decode(payload[:16] + struct.pack("<3H", *codes), np.empty(3, np.float32))


@pytest.mark.parametrize("name", HALVES)
def test_a_parameter_is_refused(name):
    payload = bytearray(compress.make(name).encode(np.zeros(3, np.float32)))
    payload[5] = 1
    with pytest.raises(FrameError, match=f"{name} payload has parameter 256, not 0"):
        compress.from_wire(bytes(payload))
