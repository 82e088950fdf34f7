"""State vectors of float64: every kernel against NumPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 70_003]
WEIGHTS = [0.5, -0.2, 0.3]
BLOCK = 384
CODECS = list(kernels.TOP_LEVEL)


def rows(count: int, n: int) -> list[np.ndarray]:
    """Numbers that float32 does not hold."""
    return [np.random.default_rng((seed, n)).standard_normal(n) for seed in range(count)]


def weighted(x: list[np.ndarray], weights: list[float]) -> np.ndarray:
    total = weights[0] * x[0]
    for weight, row in zip(weights[1:], x[1:], strict=True):
        total = total + weight * row
    return total


@pytest.mark.parametrize("n", SIZES)
def test_doubles_are_mixed_in_double(n, target):
    a, b, c, g, old = rows(5, n)
    total = weighted([a, b, c], WEIGHTS)
    np.testing.assert_array_equal(kernels.mix([a, b, c], WEIGHTS), total)
    out, ratio = np.empty(n), np.empty(n)
    kernels.push_sum_mix([a, b, c], WEIGHTS, 0.7, out, ratio)
    np.testing.assert_array_equal(out, total)
    np.testing.assert_array_equal(ratio, total / 0.7)
    previous = old.copy()
    kernels.tracking_mix([a, b, c], WEIGHTS, g, previous, out)
    np.testing.assert_array_equal(out, total + g - old)
    np.testing.assert_array_equal(previous, g)
    velocity = old.copy()
    kernels.momentum_mix([a, b, c], WEIGHTS, g, velocity, out, momentum=0.9, lr=0.1)
    np.testing.assert_array_equal(velocity, 0.9 * old + g)
    np.testing.assert_array_equal(out, total - 0.1 * velocity)
    out = c.copy()
    assert kernels.clip_accumulate([a, b], [0.5, 0.25], [2.0, 1.0], [1.0, 4.0], c, out) == 2
    np.testing.assert_array_equal(out, c + 0.25 * (a - c) + 0.25 * (b - c))


@pytest.mark.parametrize("n", SIZES)
def test_doubles_are_reduced_in_double(n, target):
    x, y = (np.round(row * 2**14) for row in rows(2, n))  # sums are exact in any order
    assert kernels.sqnorm(x) == np.dot(x, x)
    assert kernels.sqdist(x, y) == np.dot(x - y, x - y)
    np.testing.assert_array_equal(kernels.gram([x, y]), [[x @ x, x @ y], [x @ y, y @ y]])
    fine = x + 2.0**-30  # which float32 rounds off
    assert kernels.sqdist(fine, x) == pytest.approx(n * 2.0**-60, rel=1e-6)


def test_doubles_that_are_not_finite_are_counted(target):
    x = np.full(1000, 1e200)
    assert kernels.checked_sqnorm(x) == (np.inf, 0)
    x[[3, 500, 999]] = [np.nan, np.inf, -np.inf]
    assert kernels.count_nonfinite(x) == 3
    assert kernels.checked_sqnorm(x)[1] == 3


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("count", [1, 2, 7, 16, 33])
def test_doubles_are_averaged_robustly_in_double(n, count, target):
    n = min(n, 1003)
    x = rows(count, n)
    s = np.sort(np.stack(x), axis=0)
    middle = s[count // 2] if count % 2 else 0.5 * s[count // 2 - 1] + 0.5 * s[count // 2]
    np.testing.assert_array_equal(kernels.median(x), middle)
    f = (count - 1) // 2
    m = count - f
    np.testing.assert_array_equal(kernels.trimmed_mean(x, f), mean(s[f:m]))
    near = [np.where(middle - s[k] > s[k + m] - middle, s[k + m], s[k]) for k in range(f)]
    np.testing.assert_array_equal(kernels.mean_around_median(x, f), mean([*near, *s[f:m]]))


def mean(part: Any) -> np.ndarray:
    return weighted(list(part), [1.0] * len(part)) / len(part)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("n", SIZES)
def test_doubles_are_encoded_by_float32_and_settled_in_double(codec, n, target):
    a, b, g, x, e = rows(5, n)

    def code(values):
        codes = np.zeros(kernels.quant_bytes(codec, n), np.uint8)
        scales = np.zeros(kernels.quant_blocks(n, BLOCK), np.float32)
        return values, codes, scales

    def reference(values):
        made = code(values.astype(np.float32))
        kernels.quant_encode(*made, codec, BLOCK)
        return made[1], made[2], kernels.quant_decode(*made[1:], np.empty(n, np.float32), codec, BLOCK)

    def check(made, values):
        codes, scales, decoded = reference(values)
        np.testing.assert_array_equal(made[1], codes)
        np.testing.assert_array_equal(made[2], scales)
        return decoded.astype(np.float64)

    made = code(a)
    assert kernels.quant_encode(*made, codec, BLOCK) == 0
    value = check(made, a)
    np.testing.assert_array_equal(kernels.quant_decode(*made[1:], np.empty(n), codec, BLOCK), value)
    assert kernels.quant_sqdist(*made[1:], b, codec, BLOCK) == kernels.sqdist(value, b)
    out = b.copy()
    kernels.quant_accumulate([made[1]] * 2, [made[2]] * 2, [0.1, -0.7], out, codec, BLOCK)
    np.testing.assert_array_equal(out, b + 0.1 * value + -0.7 * value)
    residual, made = b.copy(), code(a)
    a, codes, scales = made
    assert kernels.quant_encode(a, codes, scales, codec, BLOCK, residual=residual) == 0
    np.testing.assert_array_equal(residual, (a + b) - check(made, a + b))
    made = code(a)
    assert kernels.quant_encode_difference(a, b, *made[1:], codec, BLOCK) == 0
    check(made, a - b)
    model, estimate, mixed, made = x.copy(), e.copy(), b.copy(), code(a)
    step = kernels.ChocoStep(0.4, 0.3, 0.1, codec, BLOCK)
    assert step.run(model, estimate, mixed, *made[1:], g) == 0
    stepped = ((x + 0.4 * b) + -0.4 * e) + -0.1 * g
    value = check(made, stepped - e)
    np.testing.assert_array_equal(model, stepped)
    np.testing.assert_array_equal(estimate, e + value)
    np.testing.assert_array_equal(mixed, b + 0.3 * value)
    kernels.choco_absorb(model, estimate, mixed, 0.4, [made[1]] * 2, [made[2]] * 2, [0.3, 0.2], codec, BLOCK)
    absorbed = ((b + 0.3 * value) + 0.3 * value) + 0.2 * value
    np.testing.assert_array_equal(mixed, absorbed)
    np.testing.assert_array_equal(estimate, (e + value) + value)
    np.testing.assert_array_equal(model, (stepped + 0.4 * absorbed) + -0.4 * ((e + value) + value))


def test_bad_blocks_of_doubles_stay_in_the_residual(target):
    x, residual = rows(2, 1003)
    x[500] = 1e60  # infinite in float32
    x[900] = np.nan
    total = x + residual
    codes, scales = np.zeros(1003, np.uint8), np.zeros(kernels.quant_blocks(1003, BLOCK), np.float32)
    assert kernels.quant_encode(x, codes, scales, "int8", BLOCK, residual=residual) == 2
    np.testing.assert_array_equal(np.isnan(scales), [False, True, True])
    np.testing.assert_array_equal(residual[BLOCK:], total[BLOCK:])
    assert np.abs(residual[:BLOCK]).max() <= 0.51 * scales[0]


def test_weights_of_doubles_are_not_rounded():
    x = np.ones(3)
    np.testing.assert_array_equal(kernels.mix([x], [0.1]), 0.1 * x)
    assert kernels.mix([x * 1e-300], [1e300])[0] == 1e300 * 1e-300
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite float32 number, got 1"):
        kernels.mix([x.astype(np.float16)], [1e300])
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite float64 number, got inf"):
        kernels.mix([x], [np.inf])
