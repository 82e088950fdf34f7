"""Quantisers of 8 to 1 bits: the definition's bits on every instruction set, faults, random rounding."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 127, 128, 129, 255, 256, 257, 2049, 70_003]
CODECS = ["int8", "int4", "int2", "sign", "e4m3", "e5m2"]
INTEGERS = CODECS[:3]
BITS = {"int8": 8, "int4": 4, "int2": 2, "sign": 1, "e4m3": 8, "e5m2": 8}
GOLDEN = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1


def vector(n, seed=0):
    rng = np.random.default_rng(n + seed)
    return (rng.standard_normal(n) * np.exp(rng.standard_normal(n))).astype(np.float32)


def rows_of(x, block):
    room = np.zeros((-(-x.size // block), block), np.float32)
    room.reshape(-1)[: x.size] = x
    return room


def scales_of(x, codec, block):
    rows = np.abs(rows_of(x, block))
    if codec != "sign":
        return rows.max(axis=1, initial=0) / np.float32(kernels.TOP_LEVEL[codec])
    total = np.zeros((rows.shape[0], 16), np.float32)
    for line in range(0, block, 16):
        total += rows[:, line : line + 16]
    for half in (8, 4, 2, 1):
        total = total[:, :half] + total[:, half : 2 * half]
    counts = np.minimum(block, x.size - block * np.arange(rows.shape[0])).astype(np.float32)
    return total[:, 0] / counts


def float8_levels(codec):
    """Levels by code 0..127, from the definition of the format; codes that are no numbers are left out."""
    mantissa, bias, count = (3, 7, 127) if codec == "e4m3" else (2, 15, 124)
    code = np.arange(count)
    exponent, fraction = code >> mantissa, (code & ((1 << mantissa) - 1)) / (1 << mantissa)
    return np.where(
        exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias)
    ).astype(np.float32)


def round_to_levels(y, levels):
    """Index of the nearest level of |y|, ties to the even index."""
    size = np.abs(y).astype(np.float64)
    above = np.clip(np.searchsorted(levels, size), 1, levels.size - 1)
    low, high = levels[above - 1].astype(np.float64), levels[above].astype(np.float64)
    nearer = (size - low > high - size) | ((size - low == high - size) & (above % 2 == 0))
    return np.where(nearer, above, above - 1)


def levels_and_codes(x, scales, codec, block, draws=None):
    each = np.repeat(scales, block)[: x.size]
    y = x * np.divide(np.float32(1), each, out=np.zeros_like(each), where=each > 0)
    if codec == "sign":
        return np.where(np.signbit(x), -1, 1).astype(np.float32), np.signbit(x).astype(np.uint8)
    if codec[0] == "e":
        levels = float8_levels(codec)
        code = round_to_levels(y, levels)
        return np.copysign(levels[code], y), (code + 128 * np.signbit(y)).astype(np.uint8)
    if draws is None:
        level = np.rint(y)
    else:
        top = kernels.TOP_LEVEL[codec]
        units = np.float32(2**15 - 2**-7)
        inverse = np.divide(np.float32(1), each, out=np.zeros_like(each), where=each > 0)
        level = (np.rint(x * (inverse * units)).astype(np.int64) + draws) >> 15
        assert np.abs(level).max() <= top
    return level.astype(np.float32) + np.float32(0), level.astype(np.int8).view(np.uint8)  # no -0


def packed(codes, codec):
    bits = BITS[codec]
    if bits == 8:
        return codes
    groups = np.zeros((-(-codes.size * bits // 128), 8 // bits, 16), np.uint8)
    groups.reshape(-1)[: codes.size] = codes & ((1 << bits) - 1)
    return np.bitwise_or.reduce(groups << (bits * np.arange(8 // bits, dtype=np.uint8))[:, None], 1).reshape(
        -1
    )


def mix64(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def draws_of(key, first, n):
    pairs = np.arange(first // 2, (first + n + 1) // 2)
    out = np.empty(pairs.size, np.uint32)
    for group in np.unique(pairs // 256):
        here = pairs // 256 == group
        state = mix64((mix64((key + GOLDEN) & WORD) + (int(group) + 1) * GOLDEN) & WORD)
        low, high = np.uint32(state & 0xFFFFFFFF), np.uint32(state >> 32)
        h = low + (pairs[here] % 256).astype(np.uint32)
        h = (h ^ (h >> 16)) * np.uint32(0x21F0AAAD) ^ high
        h = (h ^ (h >> 15)) * np.uint32(0x735A2D97)
        out[here] = (h ^ (h >> 15)) & np.uint32(0x7FFF7FFF)
    return out.view(np.uint16)[:n]


def encode(x, codec, block=256, **options):
    codes = np.full(kernels.quant_bytes(codec, x.size), 99, np.uint8)
    scales = np.full(-(-x.size // block), 99, np.float32)
    return kernels.quant_encode(x, codes, scales, codec, block, **options), codes, scales


def decode(codes, scales, codec, n, block=256):
    return kernels.quant_decode(codes, scales, np.full(n, np.nan, np.float32), codec, block)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("block", [128, 384, 256, 4096])
@pytest.mark.parametrize("n", SIZES)
def test_encodes_and_decodes_like_its_definition(target, n, block, codec):
    x = vector(n)
    bad, codes, scales = encode(x, codec, block)
    expected = scales_of(x, codec, block)
    level, code = levels_and_codes(x, expected, codec, block)
    assert bad == 0
    np.testing.assert_array_equal(scales, expected)
    np.testing.assert_array_equal(codes, packed(code, codec))
    decoded = np.repeat(scales, block)[:n] * level
    assert decode(codes, scales, codec, n, block).tobytes() == decoded.tobytes()
    assert kernels.quant_check(codes, scales, n, codec, block) == 0


@pytest.mark.parametrize(("codec", "key"), [*((c, None) for c in CODECS), *((c, 12345) for c in INTEGERS)])
@pytest.mark.parametrize("n", SIZES)
def test_feedback_is_the_sum_encoded_and_what_it_loses(target, n, key, codec):
    x, residual = vector(n), vector(n, 1)
    a = x + residual
    bad, codes, scales = encode(x, codec, residual=residual, key=key)
    plain = encode(a, codec, key=key)
    assert (bad, codes.tobytes(), scales.tobytes()) == (0, plain[1].tobytes(), plain[2].tobytes())
    assert residual.tobytes() == (a - decode(codes, scales, codec, n)).tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("n", [0, 1, 17, 255, 1300, 70_003])
def test_accumulates_like_its_definition(target, n, m, codec):
    messages = [encode(vector(n, seed), codec)[1:] for seed in range(m)]
    weights = np.random.default_rng(m).standard_normal(m).astype(np.float32)
    out = vector(n, 77)
    expected = out.copy()
    for (codes, scales), weight in zip(messages, weights, strict=True):
        expected = expected + weight * decode(codes, scales, codec, n)
    kernels.quant_accumulate(
        [c for c, _ in messages], [s for _, s in messages], weights.tolist(), out, codec, 256
    )
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("block", [128, 384, 65536])
@pytest.mark.parametrize("n", [0, 1, 16, 17, 1023, 65535, 65536, 65537, 140_003])
def test_sqdist_has_the_bits_of_that_of_the_decoded_vector(target, n, block, codec):
    x = vector(n, 1)
    _, codes, scales = encode(vector(n), codec, block)
    expected = kernels.sqdist(decode(codes, scales, codec, n, block), x)
    assert kernels.quant_sqdist(codes, scales, x, codec, block) == expected


@pytest.mark.parametrize("codec", INTEGERS)
@pytest.mark.parametrize("block", [64, 192, 256, 65536])
@pytest.mark.parametrize("n", [1, 17, 511, 512, 70_003])
def test_random_rounding_draws_from_the_key_and_the_place(target, n, block, codec):
    x = vector(n)
    key, first = 0xFEDCBA9876543210, 7 * block + 16
    _, codes, scales = encode(x, codec, block, key=key, first=first)
    _, code = levels_and_codes(x, scales, codec, block, draws_of(key, first, n))
    np.testing.assert_array_equal(codes, packed(code, codec))


@pytest.mark.parametrize("codec", INTEGERS)
def test_pieces_at_their_places_draw_what_the_whole_draws(target, codec):
    x, cut = vector(5000), 7 * 256
    _, codes, _ = encode(x, codec, key=3)
    parts = [encode(x[:cut], codec, key=3)[1], encode(x[cut:], codec, key=3, first=cut)[1]]
    np.testing.assert_array_equal(np.concatenate(parts), codes)


@pytest.mark.parametrize("codec", INTEGERS)
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.37, 0.5, 0.93])
def test_random_rounding_is_unbiased_within_one_call(codec, fraction):
    """Equal inputs must be rounded independently: their mean converges within a single vector."""
    n, top = 1 << 20, kernels.TOP_LEVEL[codec]
    x = np.full(n, (top - 1 + fraction if top > 1 else fraction), np.float32)
    x[::256] = top
    _, codes, scales = encode(x, codec, key=11)
    y = decode(codes, scales, codec, n).reshape(-1, 256)[:, 1:].astype(np.float64)
    exact = x.reshape(-1, 256)[:, 1:].astype(np.float64).mean()
    assert abs(y.mean() - exact) <= 4.5 * np.sqrt(fraction * (1 - fraction) / y.size) + 2**-14
    np.testing.assert_allclose(y.var(), fraction * (1 - fraction), atol=2e-3)


def test_draws_of_different_keys_places_and_neighbours_are_unrelated():
    draws = np.stack([draws_of(key, 0, 1 << 16) for key in (0, 1, 2**63)] + [draws_of(0, 1 << 16, 1 << 16)])
    columns = [*draws, draws[0][1:], draws[0][2:], draws[0][512:]]
    normal = [(c[:65000].astype(np.float64) - 16383.5) / 9459.3 for c in columns]
    correlations = np.corrcoef(normal) - np.eye(len(normal))
    assert np.abs(correlations).max() < 5 / np.sqrt(65000)
    for column in draws:
        counts = np.bincount(column >> 7, minlength=256)
        assert abs(((counts - 256) ** 2 / 256).sum() - 255) < 5 * np.sqrt(2 * 255)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 255, 256, 599])
def test_a_block_that_is_not_finite_is_counted_and_marked(target, value, where, codec):
    x = vector(600)
    good = encode(x, codec)
    x[where] = value
    residual = np.zeros(600, np.float32)
    bad, codes, scales = encode(x, codec, residual=residual)
    block = where // 256
    assert bad == 1
    assert np.isnan(scales[block])
    assert kernels.quant_check(codes, scales, 600, codec, 256) & kernels.BAD_SCALE
    inside = np.arange(600) // 256 == block
    np.testing.assert_array_equal(residual[inside], x[inside])
    scales[block] = 0.0
    kept = decode(codes, scales, codec, 600)
    np.testing.assert_array_equal(kept[~inside], decode(good[1], good[2], codec, 600)[~inside])
    assert not kept[inside].any()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("largest", [1e-45, 8.8e-44, 1e-40, 1.2e-38, 1e-30, 1e-28, 1e-20, 3.4e38])
def test_extreme_magnitudes_survive(target, largest, codec):
    x = (np.linspace(-1, 1, 257) * largest).astype(np.float32)
    if codec == "sign" and largest > 1e38:
        assert encode(x, codec)[0] == 1  # the sum of magnitudes overflows
        return
    bad, codes, scales = encode(x, codec)
    assert bad == 0
    assert kernels.quant_check(codes, scales, 257, codec, 256) == 0
    error = np.abs(x.astype(np.float64) - decode(codes, scales, codec, 257))
    assert error.max() <= float(np.abs(x).max()) * 1.01
    assert error @ error <= 1.001 * (x.astype(np.float64) @ x) or largest < 1e-43


@pytest.mark.parametrize("codec", CODECS)
def test_the_largest_scale_is_one_whose_top_level_is_finite(target, codec):
    top = kernels.TOP_LEVEL[codec]
    x = np.full(16, np.finfo(np.float32).max)
    bad, codes, scales = encode(x[:1], codec)
    with np.errstate(over="ignore"):
        assert bad == int(np.isinf(np.float32(x[0] / np.float32(top)) * np.float32(top)))
    assert np.isnan(scales[0]) == bool(bad)
    if not bad:
        assert kernels.quant_check(codes, scales, 1, codec, 256) == 0
        assert np.isfinite(decode(codes, scales, codec, 1)[0])


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, -0.0])
def test_check_finds_bad_scales(target, codec, scale):
    _, codes, scales = encode(vector(3000), codec)
    scales[7] = scale
    assert kernels.quant_check(codes, scales, 3000, codec, 256) == kernels.BAD_SCALE


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "sign"])
@pytest.mark.parametrize("where", [0, 5, 16, 37, 2047, 2999])
def test_check_finds_every_bad_code(target, codec, where):
    n = 3000
    _, codes, scales = encode(vector(n), codec)
    bits = BITS[codec]
    invalid = {"int8": {128}, "int4": {8}, "int2": {2}, "e4m3": {127, 255}}.get(
        codec, {s + c for s in (0, 128) for c in (124, 125, 126, 127)}
    )
    if bits == 8:
        byte, shift = where, 0
    else:
        group, place = divmod(where, 128 // bits)
        byte, shift = group * 16 + place % 16, place // 16 * bits
    for code in range(1 << bits):
        codes[byte] = int(codes[byte]) & ~(((1 << bits) - 1) << shift) | code << shift
        expected = kernels.BAD_CODE if code in invalid else 0
        assert kernels.quant_check(codes, scales, n, codec, 256) == expected


@pytest.mark.parametrize("codec", ["int4", "int2", "sign"])
@pytest.mark.parametrize("n", [1, 15, 100, 1000])
def test_check_finds_every_bit_of_the_padding(target, codec, n):
    bits = BITS[codec]
    _, codes, scales = encode(np.zeros(n, np.float32), codec)
    per = 128 // bits
    for place in range(n % per, per):
        spoilt = codes.copy()
        spoilt[-16 + place % 16] ^= 1 << (place // 16 * bits)
        assert kernels.quant_check(spoilt, scales, n, codec, 256) == kernels.BAD_PADDING


@pytest.mark.parametrize("codec", ["e4m3", "e5m2"])
def test_every_code_of_fp8_is_its_number(target, codec):
    levels = float8_levels(codec)
    codes = np.concatenate([np.arange(levels.size), 128 + np.arange(levels.size)]).astype(np.uint8)
    expected = np.concatenate([levels, -levels])
    np.testing.assert_array_equal(decode(codes, np.ones(1, np.float32), codec, codes.size), expected)
    assert levels[-1] == kernels.TOP_LEVEL[codec]
    _, again, scales = encode(expected, codec)
    assert scales.tolist() == [1.0]
    np.testing.assert_array_equal(again, codes)


@pytest.mark.parametrize("codec", CODECS)
def test_addresses_may_be_odd(target, unaligned, codec):
    x, e = vector(1001), vector(1001, 1)
    residual, odd_residual = e.copy(), unaligned(e)
    _, codes, scales = encode(x, codec, residual=residual)
    odd_codes, odd_scales = unaligned(np.zeros_like(codes)), unaligned(np.zeros(4, np.float32))
    kernels.quant_encode(unaligned(x), odd_codes, odd_scales, codec, 256, residual=odd_residual)
    assert (odd_codes.tobytes(), odd_scales.tobytes()) == (codes.tobytes(), scales.tobytes())
    assert odd_residual.tobytes() == residual.tobytes()
    out = unaligned(np.zeros(1001, np.float32))
    kernels.quant_decode(odd_codes, odd_scales, out, codec, 256)
    kernels.quant_accumulate([odd_codes], [odd_scales], [1.0], out, codec, 256)
    np.testing.assert_array_equal(out, 2 * decode(codes, scales, codec, 1001))
    assert kernels.quant_check(odd_codes, odd_scales, 1001, codec, 256) == 0


def test_wrong_arguments_are_named():
    x, codes, scales = np.zeros(300, np.float32), np.zeros(160, np.uint8), np.zeros(2, np.float32)
    e = np.zeros(300, np.float32)
    with pytest.raises(ValueError, match="codec must be int8, int4, int2, sign, e4m3 or e5m2, got 'int3'"):
        kernels.quant_encode(x, codes, scales, "int3", 256)
    with pytest.raises(ValueError, match="block of int4 must be a positive multiple of 32 elements, got 48"):
        kernels.quant_encode(x, codes, scales, "int4", 48)
    with pytest.raises(ValueError, match="block of sign must be a positive multiple of 128 elements, got 0"):
        kernels.quant_decode(codes, scales, x, "sign", 0)
    with pytest.raises(ValueError, match=r"scales must have 2 elements \(one for each block\), got 1"):
        kernels.quant_encode(x, codes, scales[:1], "int4", 256)
    with pytest.raises(ValueError, match="codes must have 160 elements"):
        kernels.quant_encode(x, codes[:150], scales, "int4", 256)
    with pytest.raises(TypeError, match="codes must be a uint8 array, got int8"):
        kernels.quant_encode(x, codes.view(np.int8), scales, "int4", 256)
    with pytest.raises(ValueError, match="residual must have 300 elements"):
        kernels.quant_encode(x, codes, scales, "int4", 256, residual=e[:20])
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.quant_encode(x, codes, scales, "int4", 256, residual=x)
    with pytest.raises(ValueError, match="x and codes overlap"):
        kernels.quant_encode(x, x.view(np.uint8)[:160], scales, "int4", 256)
    with pytest.raises(ValueError, match="sign has no stochastic rounding"):
        kernels.quant_encode(x, codes[:48], scales, "sign", 256, key=1)
    with pytest.raises(ValueError, match="first must be a multiple of 16, got 8"):
        kernels.quant_encode(x, codes, scales, "int4", 256, key=1, first=8)
    with pytest.raises(ValueError, match="equally many, got 2, 1 and 2"):
        kernels.quant_accumulate([codes, codes], [scales], [0.5, 0.5], x, "int4", 256)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.quant_accumulate([codes], [scales], [float("inf")], x, "int4", 256)
    with pytest.raises(ValueError, match="overlap"):
        kernels.quant_decode(codes, x[:2], x, "int4", 256)
    e.flags.writeable = False
    with pytest.raises(ValueError, match="residual is read-only"):
        kernels.quant_encode(x, codes, scales, "int4", 256, residual=e)
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.quant_decode(codes, scales, e, "int4", 256)
