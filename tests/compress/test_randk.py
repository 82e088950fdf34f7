from __future__ import annotations

import numpy as np
import pytest

from pydec.compress.randk import RandK
from pydec.errors import FrameError


def decoded(compressor: RandK, x: np.ndarray) -> np.ndarray:
    return compressor.decode(compressor.encode(x), np.empty_like(x))


def test_payload_is_pinned():
    x = np.arange(1, 41, dtype=np.float32)
    payload = RandK(k=4, draw_key=9).encode(x)
    assert (
        payload[:32].hex()
        == "0c010100" + "01000000" + "2800000000000000" + "0400000000000000" + "0900000000000000"
    )
    assert payload.hex()[64:] == "1f1954e7bd55eed7" + 16 * "0" + "00001041000060410000b04100002042"


def draws(compressor: RandK, x: np.ndarray, rounds: int) -> np.ndarray:
    return np.stack([decoded(compressor.keyed(key), x) for key in range(rounds)]).astype(np.float64)


@pytest.mark.parametrize(("n", "chunk"), [(64, 1), (103, 1), (103, 8)])
def test_is_a_contraction_on_average(n, chunk):
    compressor = RandK(fraction=0.1, chunk=chunk)
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    error = np.sum((draws(compressor, x, 4000) - x) ** 2, axis=1) / np.sum(x.astype(np.float64) ** 2)
    assert error.mean() <= (1 - compressor.delta(n)) + 4 * error.std() / 4000**0.5
    assert compressor.variance(n) is None


@pytest.mark.parametrize(("n", "chunk"), [(64, 1), (103, 1), (103, 8)])
def test_unbiased_means_unbiased_and_has_its_variance(n, chunk):
    compressor = RandK(fraction=0.1, chunk=chunk, unbiased=True)
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    y = draws(compressor, x, 4000)
    deviation = (y.mean(axis=0) - x) / (y.std(axis=0) / 4000**0.5 + 1e-12)
    assert np.abs(deviation).max() < 4.5
    variance = compressor.variance(n)
    assert variance is not None
    error = np.sum((y - x) ** 2, axis=1) / np.sum(x.astype(np.float64) ** 2)
    assert error.mean() <= variance + 4 * error.std() / 4000**0.5
    assert compressor.delta(n) == 0.0
    assert RandK(fraction=1.0, unbiased=True).delta(n) == 1.0


def test_places_follow_the_vector_and_the_key():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    compressor = RandK(k=10)
    assert compressor.encode(x) == compressor.encode(x.copy())
    first = np.flatnonzero(decoded(compressor, x))
    assert not np.array_equal(first, np.flatnonzero(decoded(compressor.keyed(1), x)))
    x[500] += 1
    assert not np.array_equal(first, np.flatnonzero(decoded(compressor, x)))


def test_overflow_of_scaled_values_is_refused_and_the_residual_kept():
    x, residual = np.full(100, 3e38, np.float32), np.zeros(100, np.float32)
    compressor = RandK(fraction=0.1, unbiased=True)
    with pytest.raises(ValueError, match="10 of 100 elements, which overflow when multiplied by 10"):
        compressor.encode_feedback_into(x, residual, np.empty(compressor.max_bytes(100), np.uint8))
    assert not residual.any()


def test_bad_payloads_are_refused():
    good = RandK(k=4).encode(np.ones(40, np.float32))
    for at, piece, message in (
        (4, b"\x00\x00\x00\x00", "chunk 0"),
        (4, b"\x01\x00\x01\x00", "chunk 65537"),
        (16, bytes(8), "k=0 chunks"),
        (16, b"\x29" + bytes(7), "k=41 chunks"),
        (16, b"\xff" * 8, "k=18446744073709551615 chunks"),
        (16, b"\x05" + bytes(7), "its header says 68"),
        (40, b"\x01", "filler 1"),
        (48, np.float32(np.nan).tobytes(), "1 NaN or infinite"),
    ):
        out = np.full(40, 7.0, np.float32)
        with pytest.raises(FrameError, match=message):
            RandK().decode(good[:at] + piece + good[at + len(piece) :], out)
        assert np.all(out == 7.0)
