from __future__ import annotations

import numpy as np
import pytest

from pydec import compress, kernels
from pydec.errors import FrameError

INT8 = compress.make("int8")
LARGEST = np.finfo(np.float32).max


def payload_of(n: int, block: int, scales: list[float], codes: list[int]) -> bytes:
    header = np.array([3, 1, 1, 0], np.uint8).tobytes() + np.uint32(block).tobytes() + np.uint64(n).tobytes()
    return header + np.array(scales, np.float32).tobytes() + np.array(codes, np.int8).tobytes()


def test_payload_is_pinned():
    x = np.zeros(17, np.float32)
    x[[0, 1, 16]] = 127.0, -63.4, 254.0
    payload = compress.make("int8:block=16").encode(x)
    assert payload == payload_of(17, 16, [1.0, 2.0], [127, -63, *[0] * 14, 127])
    assert payload[:16].hex() == "03010100" + "10000000" + "1100000000000000"


def test_scales_and_codes_lie_where_the_kernels_want_them():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    codes, scales = np.empty(1000, np.uint8), np.empty(4, np.float32)
    kernels.quant_encode(x, codes, scales, "int8", 256)
    assert INT8.encode(x)[16:] == scales.tobytes() + codes.tobytes()


@pytest.mark.parametrize("block", [16, 64, 256, 4096])
@pytest.mark.parametrize("n", [1, 16, 1000])
def test_contraction_is_tight_for_the_worst_vector(block, n):
    compressor = compress.make(f"int8:block={block}")
    x = np.full(n, 0.5, np.float32)  # half a scale rounds to zero
    x[::block] = 127.0
    y = compressor.decode(compressor.encode(x), np.empty_like(x))
    whole = (n // block) * block or n
    ratio = np.sum((x - y)[:whole] ** 2, dtype=np.float64) / np.sum(x[:whole] ** 2, dtype=np.float64)
    assert ratio == pytest.approx(1 - compressor.delta(n), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("exponent", [-35, -20, 0, 20, 37])
def test_every_error_is_at_most_half_a_scale(exponent):
    x = (np.random.default_rng(3).standard_normal(2560) * 10.0**exponent).astype(np.float32)
    error = np.abs(INT8.decode(INT8.encode(x), np.empty_like(x)) - x).reshape(10, 256).max(axis=1)
    assert np.all(error <= np.abs(x).reshape(10, 256).max(axis=1) / 254 * (1 + 1e-4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_elements_are_counted_and_refused(bad):
    x = np.ones(1000, np.float32)
    x[[1, 2, 999]] = bad
    with pytest.raises(
        ValueError, match="int8 cannot encode 3 NaN or infinite of 1000 elements; skip the step"
    ):
        INT8.encode(x)


def test_the_largest_floats_are_refused_rather_than_decoded_as_infinity():
    x = np.array([1.0, -LARGEST], np.float32)
    with pytest.raises(ValueError, match=r"int8 cannot encode magnitudes as large as 3.402823e\+38"):
        INT8.encode(x)
    x[1] *= np.float32(1 - 1e-6)
    assert np.all(np.isfinite(INT8.decode(INT8.encode(x), np.empty_like(x))))


def test_zeros_and_the_smallest_floats():
    x = np.zeros(300, np.float32)
    assert not np.any(INT8.decode(INT8.encode(x), np.ones_like(x)))
    x[299] = 1e-44
    assert np.all(np.abs(INT8.decode(INT8.encode(x), np.empty_like(x)) - x) <= 1e-44)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, -0.0, 2.7e36, LARGEST])
def test_bad_scales_are_refused(scale):
    with pytest.raises(FrameError, match="has a scale that is negative, not finite or too large"):
        INT8.decode(payload_of(17, 16, [1.0, scale], [1] * 17), np.empty(17, np.float32))


def test_the_code_that_no_encoder_makes_is_refused():
    with pytest.raises(FrameError, match="int8 payload has a code that no encoder makes"):
        INT8.decode(payload_of(3, 256, [1.0], [1, -128, 0]), np.empty(3, np.float32))


@pytest.mark.parametrize("block", [0, 1, 15, 24, 65552, 2**32 - 16])
def test_bad_blocks_are_refused(block):
    with pytest.raises(FrameError, match=f"has block {block}, not a multiple of 16 in"):
        INT8.decode(payload_of(3, block, [1.0], [1, 2, 3]), np.empty(3, np.float32))


def test_payloads_of_different_blocks_accumulate_in_order():
    x = np.random.default_rng(1).standard_normal((4, 700)).astype(np.float32)
    parts = [compress.make(f"int8:block={block}") for block in (16, 256, 256, 16)]
    payloads = [part.encode(row) for part, row in zip(parts, x, strict=True)]
    weights = [0.1, 0.2, 0.3, 0.4]
    expected = np.ones(700, np.float32)
    for payload, weight in zip(payloads, weights, strict=True):
        expected += np.float32(weight) * INT8.decode(payload, np.empty(700, np.float32))
    out = np.ones(700, np.float32)
    INT8.accumulate(payloads, weights, out)
    np.testing.assert_array_equal(out, expected)
