"""Reductions: the documented order of additions, the same on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 65_536, 65_537, 200_003]


def vectors(n):
    rng = np.random.default_rng(n)
    return (rng.standard_normal((2, n)) * 10.0 ** rng.uniform(-10, 10, n)).astype(np.float32)


def ordered_sum(terms):
    total = 0.0
    for first in range(0, terms.size, 2**16):
        chunk = terms[first : first + 2**16]
        rows = np.concatenate([chunk, np.zeros(-chunk.size % 16)]).reshape(-1, 16)
        lanes = np.add.accumulate(rows, axis=0)[-1]  # accumulate adds in order, unlike sum
        while lanes.size > 1:
            lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
        total += lanes[0]
    return total


@pytest.mark.parametrize("n", SIZES)
def test_sums_have_the_documented_order(target, n):
    x, y = vectors(n)
    wide, other = x.astype(np.float64), y.astype(np.float64)
    assert kernels.sqnorm(x) == ordered_sum(wide * wide)
    assert kernels.sqdist(x, y) == ordered_sum((wide - other) * (wide - other))
    assert kernels.sqdist(x, x) == 0.0
    assert kernels.sqnorm(x) == pytest.approx(float(wide @ wide), rel=1e-12)


@pytest.mark.parametrize("n", SIZES)
def test_every_nonfinite_entry_is_counted(target, n):
    x = vectors(n)[0]
    assert kernels.count_nonfinite(x) == 0
    x[::3], x[1::7] = np.nan, -np.inf
    assert kernels.count_nonfinite(x) == np.count_nonzero(~np.isfinite(x))


def test_large_and_special_values(target):
    big = np.full(100, 3e38, np.float32)
    assert kernels.sqnorm(big) == pytest.approx(100 * float(big[0]) ** 2)
    assert np.isnan(kernels.sqnorm(np.array([1, np.nan], np.float32)))
    assert kernels.sqnorm(np.array([1, -np.inf], np.float32)) == np.inf
    assert kernels.count_nonfinite(np.array([np.finfo(np.float32).max, 1e-45, -0.0], np.float32)) == 0


def test_addresses_may_be_odd(target, unaligned):
    x, y = vectors(1001)
    assert kernels.sqnorm(unaligned(x)) == kernels.sqnorm(x)
    assert kernels.sqdist(unaligned(x), unaligned(y)) == kernels.sqdist(x, y)
    assert kernels.count_nonfinite(unaligned(x)) == 0


def test_wrong_arguments_are_named():
    x = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match=r"y must have 8 elements \(as x has\), got 7"):
        kernels.sqdist(x, x[:7])
    with pytest.raises(TypeError, match="x must be a float32, float64, bfloat16 or float16 array, got int32"):
        kernels.sqnorm(x.view(np.int32))
    with pytest.raises(ValueError, match="contiguous"):
        kernels.count_nonfinite(x[::2])
