from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.compress.topk import TopK
from pydec.errors import FrameError


def payload_of(n: int, indices: list[int], values: list[float], k: int | None = None) -> bytes:
    header = np.array([2, 1, 1, 0, 0, 0, 0, 0], np.uint8).tobytes() + np.uint64(n).tobytes()
    header += np.array([len(indices) if k is None else k, 0], np.uint64).tobytes()
    return header + np.array(indices, np.uint32).tobytes() + np.array(values, np.float32).tobytes()


def test_payload_is_pinned():
    x = np.array([0.5, -3.0, 1.0, 2.0, 2.0], np.float32)
    payload = compress.make("topk:k=2").encode(x)
    assert payload == payload_of(5, [1, 3], [-3.0, 2.0])  # the tie goes to the lower index
    assert payload[:32].hex() == "02010100" + "00000000" + "0500000000000000" + "0200000000000000" + 16 * "0"


@pytest.mark.parametrize(
    ("spec", "n", "k"),
    [
        ("topk", 0, 0),
        ("topk", 1, 1),
        ("topk", 100, 1),
        ("topk", 101, 2),
        ("topk", 700, 7),  # 0.01 * 700 is 7.000000000000001 in binary
        ("topk:fraction=0.1", 30, 3),
        ("topk:fraction=1", 30, 30),
        ("topk:k=5", 3, 3),
        ("topk:k=5", 300, 5),
    ],
)
def test_number_of_entries(spec, n, k):
    compressor = compress.make(spec)
    assert isinstance(compressor, TopK)
    assert compressor.count(n) == k
    assert compressor.max_bytes(n) == len(compressor.encode(np.zeros(n, np.float32))) == 32 + 8 * k
    assert compressor.delta(n) == (k / n if n else 1.0)


def test_keeps_exactly_the_largest():
    x = np.random.default_rng(0).standard_cauchy(20_000).astype(np.float32)
    y = compress.make("topk").decode(compress.make("topk").encode(x), np.empty_like(x))
    kept = np.flatnonzero(y)
    np.testing.assert_array_equal(kept, np.sort(np.argsort(-np.abs(x), kind="stable")[:200]))
    np.testing.assert_array_equal(y[kept], x[kept])


def test_contraction_is_tight_for_equal_magnitudes():
    compressor = compress.make("topk:fraction=0.25")
    x = np.ones(64, np.float32)
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    assert np.sum((x - y) ** 2) / 64 == 1 - compressor.delta(64)


def test_non_finite_elements_are_counted_and_refused():
    x = np.ones(1000, np.float32)
    x[[1, 2, 999]] = np.nan, np.inf, -np.inf
    with pytest.raises(ValueError, match="topk cannot encode 3 NaN or infinite of 1000 elements"):
        compress.make("topk").encode(x)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (payload_of(5, [1, 5], [1.0, 1.0]), "index 5 for n=5"),
        (payload_of(5, [1, 2**32 - 1], [1.0, 1.0]), "index 4294967295"),
        (payload_of(5, [2**32 - 1, 1], [1.0, 1.0]), "do not increase"),
        (payload_of(5, [3, 1], [1.0, 1.0]), "do not increase"),
        (payload_of(5, [1, 1], [1.0, 1.0]), "do not increase"),
        (payload_of(5, [1], [np.nan]), "1 NaN or infinite values"),
        (payload_of(5, [1, 2], [np.inf, 1.0]), "1 NaN or infinite values"),
        (payload_of(5, [], []), "k=0 entries of n=5"),
        (payload_of(5, [0, 1, 2, 3, 4, 5], [1.0] * 6), "k=6 entries of n=5"),
        (payload_of(5, [1], [1.0], k=2), "has 40 bytes, its header says 48"),
        (payload_of(4, [1], [1.0]), "n=4 elements, expected n=5"),
    ],
)
def test_bad_payloads_are_refused(payload, message):
    out = np.full(5, 7.0, np.float32)
    with pytest.raises(FrameError, match=message):
        compress.make("topk").decode(payload, out)
    assert np.all(out == 7.0)


def test_disorder_is_found_anywhere_in_a_long_payload():
    n, k = 200_000, 50_000
    good = np.arange(k, dtype=np.uint32) * 4
    compressor = compress.make("topk")
    out = np.empty(n, np.float32)
    compressor.decode(payload_of(n, good.tolist(), [1.0] * k), out)
    for place in (1, 16_383, 16_384, 16_385, 32_768, k - 2):
        bad = good.copy()
        bad[place] = bad[place - 1]
        with pytest.raises(FrameError, match="do not increase"):
            compressor.decode(payload_of(n, bad.tolist(), [1.0] * k), out)
