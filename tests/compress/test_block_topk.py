from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.errors import FrameError


def payload_of(n: int, block: int, k: int, values: list[float], places: list[int]) -> bytes:
    header = b"\x0a\x01\x01\x00" + np.uint32(block).tobytes() + np.uint64(n).tobytes()
    header += np.array([k, 0], np.uint64).tobytes()
    return header + np.array(values, np.float32).tobytes() + np.array(places, np.uint16).tobytes()


def test_payload_is_pinned():
    x = np.zeros(96, np.float32)
    x[[3, 5, 60, 64, 95]] = [1.0, -3.0, 2.0, 0.5, -0.25]
    payload = compress.make("block-topk:k=2,block=64").encode(x)
    assert payload == payload_of(96, 64, 2, [-3.0, 2.0, 0.5], [5, 60, 0])  # half a block sends one


@pytest.mark.parametrize(
    ("spec", "n", "entries"),
    [
        ("block-topk", 4096, 41),
        ("block-topk", 4097, 42),
        ("block-topk", 1, 1),
        ("block-topk:k=64,block=64", 99, 99),
    ],
)
def test_size_depends_on_nothing_but_n(spec, n, entries):
    compressor = compress.make(spec)
    rng = np.random.default_rng(0)
    for x in (np.zeros(n), rng.standard_normal(n), np.ones(n)):
        assert len(compressor.encode(x.astype(np.float32))) == compressor.max_bytes(n) == 32 + 6 * entries


@pytest.mark.parametrize("n", [1, 63, 64, 65, 640, 641])
def test_contraction_is_tight_for_equal_magnitudes(n):
    compressor = compress.make("block-topk:k=16,block=64")
    x = np.ones(n, np.float32)
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    left = float(np.sum((x - y) ** 2)) / n
    assert left <= 1 - compressor.delta(n)
    assert n % 64 or left == 1 - compressor.delta(n)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (payload_of(96, 64, 2, [1, 1, 1], [5, 5, 0]), "block 0 that do not increase"),
        (payload_of(96, 64, 2, [1, 1, 1], [5, 64, 0]), "block 0 that do not increase or leave it"),
        (payload_of(96, 64, 2, [1, 1, 1], [5, 6, 32]), "block 1 that do not increase or leave it"),
        (payload_of(96, 64, 2, [1, np.inf, 1], [5, 6, 0]), "1 NaN or infinite values"),
        (payload_of(96, 64, 0, [], []), "k=0"),
        (payload_of(96, 64, 65, [1] * 96, [0] * 96), "k=65"),
        (payload_of(96, 63, 2, [1, 1, 1], [5, 6, 0]), "block 63"),
        (payload_of(96, 64, 2, [1, 1], [5, 6]), "has 44 bytes, its header says 50"),
        (payload_of(95, 64, 2, [1, 1, 1], [5, 6, 0]), "n=95 elements, expected n=96"),
    ],
)
def test_bad_payloads_are_refused(payload, message):
    out = np.full(96, 7.0, np.float32)
    with pytest.raises(FrameError, match=message):
        compress.make("block-topk").decode(payload, out)
    assert np.all(out == 7.0)


def test_payloads_of_different_shapes_accumulate_together():
    x = np.random.default_rng(0).standard_normal((3, 1000)).astype(np.float32)
    specs = ["block-topk:k=2,block=64", "block-topk:k=3,block=128", "block-topk:k=2,block=64"]
    payloads = [compress.make(spec).encode(row) for spec, row in zip(specs, x, strict=True)]
    out = np.zeros(1000, np.float32)
    compress.make("block-topk").accumulate(payloads, [1.0, 0.5, 2.0], out)
    expected = np.zeros(1000, np.float32)
    for payload, weight in zip(payloads, [1.0, 0.5, 2.0], strict=True):
        expected += np.float32(weight) * compress.from_wire(payload).decode(
            payload, np.empty(1000, np.float32)
        )
    np.testing.assert_array_equal(out, expected)
