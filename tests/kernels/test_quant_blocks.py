"""Quantisers: ties, blocks of every kind, differences, outputs that are streamed past the caches."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

CODECS = ["int8", "int4", "int2", "sign", "e4m3", "e5m2"]
CASES = [*((codec, None) for codec in CODECS), *((codec, 9) for codec in CODECS[:3])]


def vector(n, seed=0):
    rng = np.random.default_rng((n, seed))
    return (rng.standard_normal(n) * np.exp(rng.standard_normal(n))).astype(np.float32)


def room(n, codec, block):
    codes = np.full(kernels.quant_bytes(codec, n), 99, np.uint8)
    return codes, np.full(kernels.quant_blocks(n, block), 99, np.float32)


def test_ties_go_to_the_even_code(target):
    x = np.array([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5, -127.0, 0.49999997], np.float32)
    codes, scales = room(x.size, "int8", 256)
    assert (kernels.quant_encode(x, codes, scales, "int8", 256), scales.tolist()) == (0, [1.0])
    assert codes.view(np.int8).tolist() == [127, 0, 2, 2, 0, -2, -2, 126, -127, 0]


@pytest.mark.parametrize(("codec", "key"), CASES)
@pytest.mark.parametrize("groups", [1, 3, 5])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 63, 64, 65, 200, 511, 513, 4100])
def test_a_block_is_encoded_as_if_alone(target, codec, key, groups, n):
    block = groups * kernels.quant_group(codec)
    x = vector(n)
    x[: n // 3] = 0.0
    if n > 100:
        x[-block:] *= 1e-42
    codes, scales = room(n, codec, block)
    assert kernels.quant_encode(x, codes, scales, codec, block, key=key) == 0
    for index, first in enumerate(range(0, n, block)):
        part = x[first : first + block]
        mine = room(part.size, codec, block)
        kernels.quant_encode(part, mine[0], mine[1], codec, block, key=key, first=first)
        start = kernels.quant_bytes(codec, first)
        assert mine[0].tobytes() == codes[start : start + mine[0].size].tobytes()
        assert mine[1][0] == scales[index]


@pytest.mark.parametrize(("codec", "key"), CASES)
@pytest.mark.parametrize("n", [0, 1, 17, 127, 257, 1025, 70_003])
def test_a_difference_is_encoded_without_being_written(target, unaligned, codec, key, n):
    x, y = vector(n), vector(n, 1)
    expected, found = room(n, codec, 256), room(n, codec, 256)
    kernels.quant_encode(x - y, expected[0], expected[1], codec, 256, key=key, first=32)
    for a, b in ((x, y), (unaligned(x), unaligned(y))):
        bad = kernels.quant_encode_difference(a, b, found[0], found[1], codec, 256, key=key, first=32)
        assert bad == 0
        assert [part.tobytes() for part in found] == [part.tobytes() for part in expected]


def test_a_difference_that_is_not_finite_is_counted(target):
    x, y = np.full(600, 3e38, np.float32), np.zeros(600, np.float32)
    y[300] = -3e38
    codes, scales = room(600, "int8", 256)
    assert kernels.quant_encode_difference(x, y, codes, scales, "int8", 256) == 1
    assert np.isnan(scales).tolist() == [False, True, False]
    assert not codes[256:512].any()


@pytest.mark.parametrize("offset", [0, 1, 4, 60])
def test_streamed_outputs_have_the_bits_of_cached_ones(target, offset):
    n = (1 << 24) + 77
    x = np.tile(vector((1 << 16) + 3), 257)[:n]
    codes = np.zeros(n + offset + 64, np.uint8)[offset : offset + n]
    scales = np.zeros(kernels.quant_blocks(n), np.float32)
    out = np.zeros(4 * n + offset + 64, np.uint8)[offset : offset + 4 * n].view(np.float32)
    kernels.quant_encode(x, codes, scales, "int8", 256)
    kernels.quant_decode(codes, scales, out, "int8", 256)
    step = 1 << 20
    for first in range(0, n, step):
        part = slice(first, min(n, first + step))
        length = part.stop - first
        some = room(length, "int8", 256)
        kernels.quant_encode(x[part], *some, "int8", 256)
        assert some[0].tobytes() == codes[part].tobytes()
        cached = kernels.quant_decode(*some, np.zeros(length, np.float32), "int8", 256)
        assert cached.tobytes() == out[part].tobytes()


def test_wrong_differences_are_named():
    x, codes, scales = np.zeros(300, np.float32), np.zeros(300, np.uint8), np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="y must have 300 elements"):
        kernels.quant_encode_difference(x, x[1:], codes, scales, "int8", 256)
    with pytest.raises(ValueError, match="y and codes overlap"):
        kernels.quant_encode_difference(x.copy(), x, x.view(np.uint8)[:300], scales, "int8", 256)
