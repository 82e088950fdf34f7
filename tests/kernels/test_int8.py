"""int8 blocks: the definition's bits on every instruction set, error bounds, awkward values."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 70_003]
BLOCKS = [16, 48, 256, 4096]


def vector(n, seed=0):
    rng = np.random.default_rng(n + seed)
    return (rng.standard_normal(n) * np.exp(rng.standard_normal(n))).astype(np.float32)


def blocks_of(x, block):
    room = np.zeros((kernels.int8_blocks(x.size, block), block), np.float32)
    room.reshape(-1)[: x.size] = x
    return room


def reference(x, block):
    rows = blocks_of(x, block)
    scales = np.abs(rows).max(axis=1, initial=0) / np.float32(127)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    return np.rint(rows * inverse[:, None]).astype(np.int8).reshape(-1)[: x.size], scales


def encode(x, block=256):
    codes = np.full(x.size, 99, np.int8)
    scales = np.full(kernels.int8_blocks(x.size, block), 99, np.float32)
    return kernels.int8_encode(x, codes, scales, block), codes, scales


def decoded(codes, scales, block):
    return np.repeat(scales, block)[: codes.size] * codes.astype(np.float32)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("n", SIZES)
def test_encodes_and_decodes_like_its_definition(target, n, block):
    x = vector(n)
    bad, codes, scales = encode(x, block)
    expected_codes, expected_scales = reference(x, block)
    assert bad == 0
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(scales, expected_scales)
    out = np.empty(n, np.float32)
    assert kernels.int8_decode(codes, scales, out, block) is out
    np.testing.assert_array_equal(out, decoded(codes, scales, block))
    assert np.all(np.abs(x - out) <= np.repeat(scales, block)[:n] * 0.50001)


@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("n", SIZES)
def test_accumulates_like_its_definition(target, n, m):
    messages = [encode(vector(n, seed), 48)[1:] for seed in range(m)]
    weights = np.random.default_rng(m).standard_normal(m).astype(np.float32)
    out = vector(n, 77)
    expected = out.copy()
    for (codes, scales), weight in zip(messages, weights, strict=True):
        expected = expected + weight * decoded(codes, scales, 48)
    kernels.int8_accumulate([c for c, _ in messages], [s for _, s in messages], weights.tolist(), out, 48)
    assert out.tobytes() == expected.tobytes()


def test_ties_go_to_the_even_code(target):
    x = np.array([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -127.0, 0.49999997], np.float32)
    bad, codes, scales = encode(x)
    assert (bad, scales.tolist()) == (0, [1.0])
    assert codes.tolist() == [127, 0, 2, 2, 0, -2, -2, 126, -127, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 255, 256, 599])
def test_a_block_that_is_not_finite_is_counted_and_marked(target, value, where):
    x = vector(600)
    good = encode(x)
    x[where] = value
    bad, codes, scales = encode(x)
    block = where // 256
    assert bad == 1
    assert np.isnan(scales[block])
    assert not codes[block * 256 : (block + 1) * 256].any()
    others = np.arange(600) // 256 != block
    np.testing.assert_array_equal(codes[others], good[1][others])


@pytest.mark.parametrize(
    "largest", [1e-45, 8.8e-44, 9e-44, 2.7e-43, 1e-40, 1.2e-38, 1e-30, 1e-28, 1e-20, 3.4e38]
)
def test_extreme_magnitudes_survive(target, largest):
    x = (np.linspace(-1, 1, 257) * largest).astype(np.float32)
    bad, codes, scales = encode(x)
    assert bad == 0
    assert np.all(np.isfinite(scales))
    assert np.all(np.abs(codes.astype(int)) <= 127)
    error = np.abs(x.astype(np.float64) - decoded(codes, scales, 256))
    assert np.all(error <= np.maximum(np.abs(x) / 2, np.repeat(scales, 256)[:257] * 0.50001 + 64 * 1.4e-45))
    assert error @ error <= x.astype(np.float64) @ x or largest < 1e-43


def test_zero_blocks_have_scale_zero(target):
    bad, codes, scales = encode(np.array([0.0, -0.0] * 200, np.float32))
    assert (bad, codes.any(), scales.tobytes()) == (0, False, bytes(8))


def test_addresses_may_be_odd(target, unaligned):
    x = vector(1001)
    _, codes, scales = encode(x)
    odd_codes, odd_scales = unaligned(np.zeros(1001, np.int8)), unaligned(np.zeros(4, np.float32))
    kernels.int8_encode(unaligned(x), odd_codes, odd_scales)
    assert (odd_codes.tobytes(), odd_scales.tobytes()) == (codes.tobytes(), scales.tobytes())
    out = unaligned(np.zeros(1001, np.float32))
    kernels.int8_decode(odd_codes, odd_scales, out)
    np.testing.assert_array_equal(out, decoded(codes, scales, 256))
    kernels.int8_accumulate([odd_codes], [odd_scales], [1.0], out)
    np.testing.assert_array_equal(out, 2 * decoded(codes, scales, 256))


def test_wrong_arguments_are_named():
    x, codes, scales = np.zeros(300, np.float32), np.zeros(300, np.int8), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="block must be a positive multiple of 16 elements, got 100"):
        kernels.int8_encode(x, codes, scales, 100)
    with pytest.raises(ValueError, match="block must be a positive multiple of 16 elements, got 0"):
        kernels.int8_decode(codes, scales, x, 0)
    with pytest.raises(ValueError, match=r"scales must have 2 elements \(one for each block\), got 1"):
        kernels.int8_encode(x, codes, scales[:1])
    with pytest.raises(ValueError, match="codes must have 300 elements"):
        kernels.int8_encode(x, codes[:10], scales)
    with pytest.raises(TypeError, match="codes must be a int8 array, got uint8"):
        kernels.int8_encode(x, codes.view(np.uint8), scales)
    with pytest.raises(ValueError, match="equally many, got 2, 1 and 2"):
        kernels.int8_accumulate([codes, codes], [scales], [0.5, 0.5], x)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.int8_accumulate([codes], [scales], [float("inf")], x)
    with pytest.raises(ValueError, match="x and codes overlap"):
        kernels.int8_encode(x, x.view(np.int8)[:300], scales)
    with pytest.raises(ValueError, match="overlap"):
        kernels.int8_decode(codes, x[:2], x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.int8_decode(codes, scales, x)
