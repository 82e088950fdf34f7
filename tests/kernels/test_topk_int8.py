"""The largest entries as int8 codes and packed gaps: the selection, codes and bits of the parts alone."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 129, 1000, 16_384, 70_003, 300_001]


def counts(n):
    return sorted({k for k in (0, 1, 17, 128, n // 100, n // 10, n) if k <= n})


def encode(x, residual, k, block):
    body = np.full(kernels.topk_int8_bound(x.size, k, block), 0xAB, np.uint8)
    length, bad, too_large = kernels.topk_int8_encode(x, residual, k, block, body)
    assert (bad, too_large) == (0, 0)
    return body[:length]


def reference(a, k, block):
    """The message and what it decodes to, from the kernels for each part."""
    indices, values = np.zeros(k, np.uint32), np.zeros(k, np.float32)
    kernels.topk_select(a, k, indices, values)
    codes, scales = np.zeros(k, np.uint8), np.zeros(-(-k // block), np.float32)
    kernels.quant_encode(values, codes, scales, "int8", block)
    sent, gaps = np.zeros(k, np.float32), np.zeros(kernels.gaps_bound(a.size, k), np.uint8)
    kernels.quant_decode(codes, scales, sent, "int8", block)
    length = kernels.gaps_pack(indices, gaps)
    decoded = np.zeros(a.size, np.float32)
    decoded[indices] = sent
    return scales.tobytes() + codes.tobytes() + gaps[:length].tobytes(), decoded


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("block", [16, 256])
def test_is_the_composition_of_its_parts(target, n, block):
    rng = np.random.default_rng(n)
    x, residual = rng.standard_normal((2, n)).astype(np.float32)
    for k in counts(n):
        a = x + residual
        expected, decoded = reference(a, k, block)
        assert encode(a, None, k, block).tobytes() == expected
        rest = residual.copy()
        body = encode(x, rest, k, block)
        assert body.tobytes() == expected
        np.testing.assert_array_equal(rest, a - decoded)
        out = np.full(n, np.nan, np.float32)
        assert kernels.topk_int8_decode(body, k, block, out) == 0
        np.testing.assert_array_equal(out, decoded)


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-30, 1e30, 2e38])
def test_scales_at_the_ends_of_the_range(target, scale):
    x = (np.random.default_rng(0).uniform(-1, 1, 2000) * scale).astype(np.float32)
    expected, decoded = reference(x, 300, 64)
    body, out = encode(x, None, 300, 64), np.empty_like(x)
    assert body.tobytes() == expected
    assert kernels.topk_int8_decode(body, 300, 64, out) == 0
    np.testing.assert_array_equal(out, decoded)


@pytest.mark.parametrize("n", [1, 130, 70_003])
@pytest.mark.parametrize("m", [0, 1, 2, 5])
def test_adds_messages_in_order(target, n, m):
    rng = np.random.default_rng([n, m])
    ks, blocks = [max(1, n // (7 + 40 * j)) for j in range(m)], [16 * (1 + j) for j in range(m)]
    weights = [0.4 - 0.3 * j for j in range(m)]
    bodies = []
    expected = out = rng.standard_normal(n).astype(np.float32)
    out = expected.copy()
    for k, block, weight in zip(ks, blocks, weights, strict=True):
        bodies.append(encode(rng.standard_normal(n).astype(np.float32), None, k, block))
        decoded = np.zeros(n, np.float32)
        kernels.topk_int8_decode(bodies[-1], k, block, decoded)
        expected = expected + np.float32(weight) * decoded
    assert kernels.topk_int8_accumulate(bodies, ks, blocks, weights, out) == (m, 0)
    np.testing.assert_array_equal(out, expected)


def test_threads_change_no_bit():
    n, counts, blocks = 1_100_003, [180_000, 12_000, 1], [256, 16, 16]
    rng = np.random.default_rng(0)
    bodies = [
        encode(rng.standard_normal(n, dtype=np.float32), None, k, block)
        for k, block in zip(counts, blocks, strict=True)
    ]
    start, found = rng.standard_normal(n, dtype=np.float32), set()
    for threads in (1, 2, 3, 7):
        kernels.set_num_threads(threads)
        out, decoded = start.copy(), np.full(n, np.nan, np.float32)
        assert kernels.topk_int8_accumulate(bodies, counts, blocks, [0.5, -0.2, 3.0], out) == (3, 0)
        assert kernels.topk_int8_decode(bodies[0], counts[0], blocks[0], decoded) == 0
        found.add(out.tobytes() + decoded.tobytes())
    assert len(found) == 1


def test_addresses_may_be_odd(target, unaligned):
    x, residual = np.random.default_rng(0).standard_normal((2, 20_001)).astype(np.float32)
    expected, decoded = reference(x + residual, 200, 32)
    rest = unaligned(residual)
    body = unaligned(np.zeros(kernels.topk_int8_bound(x.size, 200, 32), np.uint8))
    length, _, _ = kernels.topk_int8_encode(unaligned(x), rest, 200, 32, body)
    assert body[:length].tobytes() == expected
    np.testing.assert_array_equal(rest, (x + residual) - decoded)
    out = unaligned(np.zeros(x.size, np.float32))
    body = unaligned(body[:length])
    assert kernels.topk_int8_decode(body, 200, 32, out) == 0
    np.testing.assert_array_equal(out, decoded)
    kernels.topk_int8_accumulate([body], [200], [32], [-1.0], out)
    assert not out.any()


@pytest.mark.parametrize("n", [1000, 70_003])
def test_what_cannot_be_encoded_is_counted_and_left(target, n):
    x, residual = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    body = np.zeros(kernels.topk_int8_bound(n, 50, 16), np.uint8)
    for value, found in ((np.nan, (1, 0)), (-np.inf, (1, 0)), (3.4028235e38, (0, 1))):
        spoilt, rest = x.copy(), residual.copy()
        spoilt[n // 2] = value
        assert kernels.topk_int8_encode(spoilt, rest, 50, 16, body)[1:] == found
        np.testing.assert_array_equal(rest, spoilt + residual)


def test_faults_are_told_apart_and_out_is_left(target):
    x = np.random.default_rng(0).standard_normal(3000).astype(np.float32)
    k, block = 40, 32
    good, out = encode(x, None, k, block), np.full(3000, 7.0, np.float32)

    def faults_of(body, n=3000):
        found = kernels.topk_int8_decode(body, k, block, out[:n])
        assert (
            kernels.topk_int8_accumulate([good, body], [k] * 2, [block] * 2, [1.0] * 2, out[:n])[1]
            or n < 3000
        )
        assert np.all(out == 7.0)
        return found

    def changed(at, value):
        body = good.copy()
        body[at : at + len(value)] = np.frombuffer(value, np.uint8)
        return body

    for length in (0, 7, 8, 40, 48, good.size - 1):
        assert faults_of(good[:length]) & kernels.GAPS_BAD_LENGTH
    assert faults_of(np.append(good, np.uint8(0))) == kernels.GAPS_BAD_LENGTH
    for scale in (-1.0, np.nan, np.inf, -0.0, 3e36):
        assert faults_of(changed(4, np.float32(scale).tobytes())) & kernels.TOPK_BAD_SCALE, scale
    assert faults_of(changed(4, np.float32(0.0).tobytes())) == kernels.TOPK_BAD_CODE
    assert faults_of(changed(8, b"\x80")) == kernels.TOPK_BAD_CODE
    assert faults_of(changed(8, bytes(32))) == kernels.TOPK_BAD_CODE  # no code of 127
    assert faults_of(changed(48, b"\x20")) & (kernels.GAPS_BAD_LENGTH | kernels.GAPS_BAD_WIDTH)
    assert faults_of(good, int(np.flatnonzero(x)[0]) + 40) == kernels.GAPS_BAD_INDEX


def test_wrong_arguments_are_named():
    x, body = np.zeros(100, np.float32), np.zeros(999, np.uint8)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.100, got 101"):
        kernels.topk_int8_encode(x, None, 101, 16, body)
    with pytest.raises(ValueError, match="block must be a positive multiple of 16, got 8"):
        kernels.topk_int8_encode(x, None, 5, 8, body)
    with pytest.raises(ValueError, match=r"body has 5 bytes, a message may need \d+; see topk_int8_bound"):
        kernels.topk_int8_encode(x, None, 5, 16, body[:5])
    with pytest.raises(ValueError, match="residual must have 100 elements"):
        kernels.topk_int8_encode(x, x[:5].copy(), 5, 16, body)
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.topk_int8_encode(x, x, 5, 16, body)
    with pytest.raises(TypeError, match="body must be a uint8 array"):
        kernels.topk_int8_decode(x, 5, 16, x.copy())
    with pytest.raises(ValueError, match="equally many, got 1, 1, 1 and 2"):
        kernels.topk_int8_accumulate([body], [5], [16], [1.0, 2.0], x)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.topk_int8_accumulate([body], [5], [16], [float("inf")], x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.topk_int8_decode(body, 5, 16, x)
