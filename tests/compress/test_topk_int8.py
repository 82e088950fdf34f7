from __future__ import annotations

import struct

import numpy as np
import pytest

from pydec import compress
from pydec.compress.topk_int8 import TopKInt8
from pydec.errors import ConfigError, FrameError


def payload_of(n: int, k: int, body: bytes, block: int = 256, length: int | None = None) -> bytes:
    header = struct.pack("<BBBBIQ", 13, 1, 1, 0, block, n)
    return header + struct.pack("<QQ", k, len(body) if length is None else length) + body


def scale_of(*scales: float) -> bytes:
    return np.array(scales, "<f4").tobytes()


def group_of(*lanes: int) -> bytes:
    return np.array([*lanes, *[0] * (4 - len(lanes))], "<u4").tobytes()


GOOD = scale_of(1.0) + bytes([129, 64]) + bytes([2]) + group_of(1, 2)  # -127 at 1, 64 at 4
"""Gaps 1 and 2: two bits each."""


def test_payload_is_pinned():
    x = np.array([0.5, -127.0, 1.0, 2.0, 64.0], np.float32)
    payload = compress.make("topk-int8:k=2").encode(x)
    assert payload == payload_of(5, 2, GOOD)
    assert (
        payload[:32].hex()
        == "0d010100" + "00010000" + "0500000000000000" + "0200000000000000" + "1700000000000000"
    )
    out = compress.make("topk-int8").decode(payload, np.empty(5, np.float32))
    assert out.tolist() == [0.0, -127.0, 0.0, 0.0, 64.0]


@pytest.mark.parametrize(
    ("spec", "n", "k"),
    [
        ("topk-int8", 0, 0),
        ("topk-int8", 1, 1),
        ("topk-int8", 101, 2),
        ("topk-int8", 700, 7),
        ("topk-int8:fraction=1", 30, 30),
        ("topk-int8:k=5", 3, 3),
        ("topk-int8:k=300,scale_block=16", 500, 300),
    ],
)
def test_number_of_entries_and_contraction(spec, n, k):
    compressor = compress.make(spec)
    assert isinstance(compressor, TopKInt8)
    assert compressor.count(n) == k
    block = min(compressor.scale_block, k)
    assert compressor.delta(n) == (254**2 / (254**2 + block - 1) * k / n if n else 1.0)
    payload = compressor.encode(np.arange(n, dtype=np.float32))
    assert payload[16:24] == struct.pack("<Q", k)
    assert len(payload) <= compressor.max_bytes(n)


def test_contraction_is_nearly_tight():
    """Equal magnitudes lose 1 - k / n; one large entry among halves of a step loses what int8 can lose."""
    compressor = TopKInt8(k=64, scale_block=64)
    x = np.ones(256, np.float32)
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    assert np.sum((x - y) ** 2) / 256 == 1 - 64 / 256
    x = np.full(64, 0.4999, np.float32)
    x[0] = 127.0
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    lost = np.sum((x - y) ** 2, dtype=np.float64) / np.sum(x**2, dtype=np.float64)
    assert 0.99 * (1 - compressor.delta(64)) < lost <= 1 - compressor.delta(64)


@pytest.mark.parametrize(("spec", "bits"), [("topk-int8", 17.8), ("topk-int8:fraction=0.001", 21.3)])
def test_bits_for_each_entry(spec, bits):
    n = 1 << 21
    payload = compress.make(spec).encode(np.random.default_rng(0).standard_normal(n).astype(np.float32))
    assert 8 * (len(payload) - 32) / TopKInt8(compress.make(spec).fraction).count(n) < bits  # type: ignore[attr-defined]


def test_feedback_keeps_what_quantisation_lost_at_the_sent_places():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    compressor, residual = TopKInt8(k=100), np.zeros(1000, np.float32)
    out = np.empty(compressor.max_bytes(1000), np.uint8)
    sent = compressor.decode(out[: compressor.encode_feedback_into(x, residual, out)], np.empty_like(x))
    places = np.flatnonzero(sent)
    assert places.size == 100
    np.testing.assert_array_equal(residual[places], x[places] - sent[places])
    assert 0 < np.abs(residual[places]).max() <= np.abs(x).max() / 127 / 2 * 1.001


def test_magnitudes_that_would_decode_to_infinity_are_refused():
    x, before = np.ones(100, np.float32), np.full(100, 0.5, np.float32)
    x[7] = np.finfo(np.float32).max
    residual = before.copy()
    compressor = TopKInt8(k=5)
    with pytest.raises(ValueError, match="topk-int8 cannot encode 1 blocks of entries with magnitudes near"):
        compressor.encode_feedback_into(x, residual, np.empty(compressor.max_bytes(100), np.uint8))
    np.testing.assert_array_equal(np.delete(residual, 7), np.delete(before, 7))


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (payload_of(4, 2, GOOD), "n=4 elements, expected n=5"),
        (payload_of(5, 0, b""), "k=0 entries of n=5"),
        (payload_of(5, 6, GOOD), "k=6 entries of n=5"),
        (payload_of(5, 2, GOOD, block=8), "block 8"),
        (payload_of(5, 2, GOOD, block=1 << 17), "block 131072"),
        (payload_of(5, 2, GOOD, length=24), "has 55 bytes, its header says 56"),
        (payload_of(5, 2, GOOD[:-1]), "another length than its widths say"),
        (payload_of(5, 2, GOOD + b"\0"), "another length than its widths say"),
        (payload_of(5, 2, GOOD[:5]), "another length than its widths say"),
        (payload_of(5, 2, GOOD[:7] + group_of(1, 3)), "an index beyond the last element"),
        (payload_of(5, 2, GOOD[:6] + b"\3" + group_of(1, 2)), "a width that its gaps do not need"),
        (payload_of(5, 2, GOOD[:7] + group_of(1, 2, 1)), "bits after the last gap"),
        (payload_of(5, 2, scale_of(-1.0) + GOOD[4:]), "a scale that is negative"),
        (payload_of(5, 2, scale_of(np.nan) + GOOD[4:]), "a scale that is negative, not finite"),
        (payload_of(5, 2, scale_of(3e36) + GOOD[4:]), "too large"),
        (payload_of(5, 2, GOOD[:4] + b"\x80\x7f" + GOOD[6:]), "codes that no encoder makes"),
        (payload_of(5, 2, GOOD[:4] + b"\x40\x40" + GOOD[6:]), "codes that no encoder makes"),
        (payload_of(5, 2, scale_of(0.0) + GOOD[4:]), "codes that no encoder makes"),
    ],
)
def test_bad_payloads_are_refused(payload, message):
    out = np.full(5, 7.0, np.float32)
    for use in (
        lambda: compress.make("topk-int8").decode(payload, out),
        lambda: compress.make("topk-int8").accumulate([payload_of(5, 2, GOOD), payload], [1.0, 1.0], out),
    ):
        with pytest.raises(FrameError, match=message):
            use()
    assert np.all(out == 7.0)


def test_options_are_checked():
    for scale_block in (0, 8, 24, 1 << 17):
        with pytest.raises(
            ConfigError, match=f"scale_block must be a multiple of 16 in 16..65536, got {scale_block}"
        ):
            TopKInt8(scale_block=scale_block)
    with pytest.raises(ConfigError, match="exclude each other"):
        TopKInt8(fraction=0.5, k=3)
