"""bfloat16 and float16: the bits of every conversion, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 2047, 2049, 70_003]
HALVES = ["bf16", "fp16"]


def vector(n, seed=0):
    rng = np.random.default_rng([n, seed])
    return (rng.standard_normal(n) * np.exp2(rng.integers(-30, 15, n))).astype(np.float32)


def code_of(x, half):
    if half == "fp16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def value_of(codes, half):
    if half == "fp16":
        return codes.view(np.float16).astype(np.float32)
    return (codes.astype(np.uint32) << 16).view(np.float32)


def encode(x, half, **options):
    codes = np.full(x.size, 99, np.uint16)
    return kernels.cast_encode(x, codes, half, **options), codes


def finite(codes, half):
    return codes[np.isfinite(value_of(codes, half))]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("n", SIZES)
def test_encodes_and_decodes_like_its_definition(target, n, half):
    x = vector(n)
    bad, codes = encode(x, half)
    assert bad == np.count_nonzero(np.abs(x) >= 65520) * (half == "fp16")
    np.testing.assert_array_equal(codes, code_of(x, half))
    out = np.full(n, np.nan, np.float32)
    assert kernels.cast_decode(codes, out, half) is out
    assert out.tobytes() == value_of(codes, half).tobytes()


@pytest.mark.parametrize("half", HALVES)
def test_every_code_decodes_to_its_number_and_back(target, half):
    codes = np.arange(1 << 16, dtype=np.uint16)
    out = np.empty(1 << 16, np.float32)
    kernels.cast_decode(codes, out, half)
    expected = value_of(codes, half)
    number = ~np.isnan(expected)
    assert out[number].tobytes() == expected[number].tobytes()
    assert np.all(np.isnan(out[~number]))
    bad, again = encode(out, half)
    assert bad == np.count_nonzero(~np.isfinite(expected)) == kernels.cast_count_nonfinite(codes, half)
    np.testing.assert_array_equal(again[number], codes[number])
    assert np.all(np.isnan(value_of(again[~number], half)))


@pytest.mark.parametrize("half", HALVES)
def test_middles_go_to_the_even_code_and_their_neighbours_to_the_nearer(target, half):
    codes = finite(np.arange(1 << 15, dtype=np.uint16), half)[:-1]
    low, high = (
        value_of(codes, half).astype(np.float64),
        value_of(codes + np.uint16(1), half).astype(np.float64),
    )
    middle = ((low + high) / 2).astype(np.float32)
    exact = middle == (low + high) / 2  # not between the smallest bfloat16s
    even = codes + (codes & 1)
    for x, expected in (
        (middle, even),
        (np.nextafter(middle, np.float32(0)), codes),
        (np.nextafter(middle, np.float32(np.inf)), codes + np.uint16(1)),
    ):
        for signed, sign in ((x, 0), (-x, 0x8000)):
            np.testing.assert_array_equal(encode(signed, half)[1][exact], (expected | sign)[exact])


@pytest.mark.parametrize(
    ("half", "largest", "refused"), [("fp16", 65504, 65520), ("bf16", 3.3895e38, 3.3962e38)]
)
def test_what_is_too_large_becomes_infinity_and_is_counted(target, half, largest, refused):
    x = np.array([largest, np.nextafter(np.float32(refused), np.float32(0)) if half == "fp16" else 3.39e38])
    assert encode(x.astype(np.float32), half)[0] == 0
    x = np.array([refused, -refused, np.inf, -np.inf, np.nan, 1e38 * 3.4], np.float32)
    bad, codes = encode(x, half)
    assert bad == 6
    values = value_of(codes, half)
    np.testing.assert_array_equal(values[[0, 1, 2, 3, 5]], np.array([1, -1, 1, -1, 1]) * np.inf)
    assert np.isnan(values[4])


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("n", SIZES)
def test_feedback_is_the_sum_encoded_and_what_it_loses(target, n, half):
    x, residual = vector(n), vector(n, 1)
    a = x + residual
    bad, codes = encode(x, half, residual=residual)
    assert codes.tobytes() == encode(a, half)[1].tobytes()
    values = value_of(codes, half)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(residual, np.where(np.isfinite(values), a - values, a))
    assert bad == np.count_nonzero(~np.isfinite(values))


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("m", [0, 1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("n", [0, 1, 17, 2049, 70_003])
def test_accumulates_like_its_definition(target, n, m, half):
    messages = [code_of(np.clip(vector(n, seed), -6e4, 6e4), half) for seed in range(m)]
    weights = np.random.default_rng(m).standard_normal(m).astype(np.float32)
    out = vector(n, 77)
    expected = out.copy()
    for codes, weight in zip(messages, weights, strict=True):
        expected = expected + weight * value_of(codes, half)
    kernels.cast_accumulate(messages, weights.tolist(), out, half)
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("half", HALVES)
def test_addresses_may_be_odd(target, unaligned, half):
    x, e = np.clip(vector(1001), -6e4, 6e4), vector(1001, 1) / 1e6
    residual, odd_residual = e.copy(), unaligned(e)
    _, codes = encode(x, half, residual=residual)
    odd = unaligned(np.zeros_like(codes))
    assert kernels.cast_encode(unaligned(x), odd, half, residual=odd_residual) == 0
    assert (odd.tobytes(), odd_residual.tobytes()) == (codes.tobytes(), residual.tobytes())
    out = unaligned(np.zeros(1001, np.float32))
    kernels.cast_decode(odd, out, half)
    kernels.cast_accumulate([odd], [1.0], out, half)
    np.testing.assert_array_equal(out, 2 * value_of(codes, half))


def test_wrong_arguments_are_named():
    x, codes = np.zeros(300, np.float32), np.zeros(300, np.uint16)
    with pytest.raises(ValueError, match="half must be bf16 or fp16, got 'fp8'"):
        kernels.cast_encode(x, codes, "fp8")
    with pytest.raises(TypeError, match="codes must be a uint16 array, got int16"):
        kernels.cast_encode(x, codes.view(np.int16), "bf16")
    with pytest.raises(ValueError, match="codes must have 300 elements"):
        kernels.cast_decode(codes[:20], x, "bf16")
    with pytest.raises(ValueError, match="x and codes overlap"):
        kernels.cast_encode(x, x.view(np.uint16)[:300], "bf16")
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.cast_encode(x, codes, "bf16", residual=x)
    with pytest.raises(ValueError, match="equally many, got 2 and 1"):
        kernels.cast_accumulate([codes, codes], [0.5], x, "bf16")
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.cast_accumulate([codes], [float("nan")], x, "bf16")
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.cast_decode(codes, x, "bf16")
