from __future__ import annotations

import numpy as np
import pytest

from pydec import compress
from pydec.compress.threshold import Threshold
from pydec.errors import FrameError


def payload_of(n: int, k: int, indices: list[int], values: list[float], count: int | None = None) -> bytes:
    header = b"\x0b\x01\x01\x00\x00\x00\x00\x00" + np.uint64(n).tobytes()
    header += np.array([k, len(indices) if count is None else count], np.uint64).tobytes()
    return header + np.array(indices, np.uint32).tobytes() + np.array(values, np.float32).tobytes()


def test_payload_is_pinned():
    x = np.array([0.5, -3.0, 1.0, 2.0, 2.0], np.float32)
    assert compress.make("threshold:k=2").encode(x) == payload_of(5, 2, [1, 3, 4], [-3.0, 2.0, 2.0])


@pytest.mark.parametrize(
    ("k", "n", "bounds"), [(1, 1, (1, 1, 1)), (5, 100, (3, 5, 10)), (60, 100, (30, 60, 100))]
)
def test_bounds(k, n, bounds):
    compressor = Threshold(k=k)
    assert compressor.bounds(n) == bounds
    assert compressor.max_bytes(n) == 32 + 8 * bounds[2]
    assert compressor.delta(n) == bounds[0] / n
    equal, zero = (len(compressor.encode(np.full(n, value, np.float32))) for value in (1.0, 0.0))
    assert (equal, zero) == (32 + 8 * bounds[2], 32 + 8 * bounds[0])


def test_contraction_is_tight_where_the_lower_bound_applies():
    compressor = Threshold(k=200)
    x = np.zeros(20_000, np.float32)
    x[:100] = 1.0  # the sample sees hardly any of them
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    assert np.array_equal(x, y)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (payload_of(5, 2, [1, 5], [1, 1]), "index 5 for n=5"),
        (payload_of(5, 2, [3, 1], [1, 1]), "do not increase"),
        (payload_of(5, 2, [1, 1], [1, 1]), "do not increase"),
        (payload_of(5, 2, [1, 2], [np.nan, 1]), "1 NaN or infinite"),
        (payload_of(5, 2, [], []), r"0 entries for k=2, not 1\.\.4"),
        (payload_of(5, 1, [0, 1, 2], [1, 1, 1]), r"3 entries for k=1, not 1\.\.2"),
        (payload_of(5, 0, [], []), "k=0 of n=5"),
        (payload_of(5, 6, [0, 1, 2], [1, 1, 1]), "k=6 of n=5"),
        (payload_of(5, 2, [1], [1], count=2), "has 40 bytes, its header says 48"),
    ],
)
def test_bad_payloads_are_refused(payload, message):
    out = np.full(5, 7.0, np.float32)
    with pytest.raises(FrameError, match=message):
        compress.make("threshold").decode(payload, out)
    assert np.all(out == 7.0)
