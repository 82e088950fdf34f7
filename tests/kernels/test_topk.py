"""Top-k is exact on every instruction set and for every order of the data; the scatter checks first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 16_383, 16_384, 70_003, 300_001]


def counts(n):
    few = {0, 1, 2, n // 1000, n // 100, n // 10, n // 8 + 1, n // 2, n - 1, n}
    return sorted(k for k in few if 0 <= k <= n)


def reference(a, k):
    chosen = np.sort(np.argsort(-np.abs(a), kind="stable")[:k])  # stable: ties to the lowest index
    rest = a.copy()
    rest[chosen] = 0
    return chosen.astype(np.uint32), a[chosen], rest


def outputs(k):
    return np.full(k, 4_000_000_000, np.uint32), np.full(k, np.nan, np.float32)


def check(x, residual, k):
    a = x + residual
    chosen, values, rest = reference(a, k)
    got = outputs(k)
    mine = residual.copy()
    assert kernels.topk_feedback(x, mine, k, *got) == 0
    np.testing.assert_array_equal(got[0], chosen)
    assert (got[1].tobytes(), mine.tobytes()) == (values.tobytes(), rest.tobytes())
    got = outputs(k)
    assert kernels.topk_select(a, k, *got) == 0
    np.testing.assert_array_equal(got[0], chosen)
    assert got[1].tobytes() == values.tobytes()


@pytest.mark.parametrize("n", SIZES)
def test_selects_exactly(target, n):
    rng = np.random.default_rng(n)
    x, residual = rng.standard_normal((2, n)).astype(np.float32)
    for k in counts(n):
        check(x, residual, k)


HARD: dict[str, Callable[[int], Any]] = {
    "all equal": lambda n: np.full(n, -0.25),
    "all zero": np.zeros,
    "ascending": np.arange,
    "descending": lambda n: -np.arange(n)[::-1],
    "few values": lambda n: np.random.default_rng(1).integers(-3, 4, n),
    "spikes": lambda n: np.where(np.arange(n) % 4099 == 7, 1e30, 1e-30),
    "large at the end": lambda n: np.where(np.arange(n) > n - 900, 5.0, np.random.default_rng(2).random(n)),
    "denormal": lambda n: np.random.default_rng(3).integers(-99, 99, n) * 1e-44,
    "equal but for one": lambda n: np.where(np.arange(n) == n // 2, 2.0, 1.0),
    "heavy tail": lambda n: np.clip(np.random.default_rng(4).standard_cauchy(n), -1e30, 1e30),
}


@pytest.mark.parametrize("name", HARD)
def test_no_order_of_the_data_defeats_it(target, name):
    n = 70_003
    x = HARD[name](n).astype(np.float32)
    for k in (1, 17, 700, 7000):
        check(x, np.zeros(n, np.float32), k)


@pytest.mark.parametrize("n", [1000, 70_003])
def test_not_finite_entries_are_counted_and_come_first(target, n):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    x[[5, 900]] = np.nan
    x[[7, 999]] = [np.inf, -np.inf]
    for k in (0, 1, 4, 50, n):
        indices, values = outputs(k)
        residual = np.zeros(n, np.float32)
        assert kernels.topk_feedback(x, residual, k, indices, values) == 4
        assert len(set(indices.tolist()) & {5, 900, 7, 999}) == min(k, 4)
        assert kernels.count_nonfinite(residual) == 4 - min(k, 4)


def test_mostly_nan_is_counted(target):
    x = np.full(70_003, np.nan, np.float32)
    x[::2] = 1.0
    assert kernels.topk_select(x, 700, *outputs(700)) == 35_001


def test_addresses_may_be_odd(target, unaligned):
    x, residual = np.random.default_rng(0).standard_normal((2, 20_001)).astype(np.float32)
    chosen, values, rest = reference(x + residual, 200)
    indices, found = (unaligned(array) for array in outputs(200))
    residual = unaligned(residual)
    kernels.topk_feedback(unaligned(x), residual, 200, indices, found)
    np.testing.assert_array_equal(indices, chosen)
    assert (found.tobytes(), residual.tobytes()) == (values.tobytes(), rest.tobytes())
    out = unaligned(np.zeros(20_001, np.float32))
    kernels.scatter_accumulate(indices, found, 1.0, out)
    np.testing.assert_array_equal(out[chosen], values)
    assert np.count_nonzero(out) == 200


def test_indices_stay_exact_beyond_float32(target):
    n = 2**24 + 40
    x = np.zeros(n, np.float32)
    x[[3, 2**24 + 1, 2**24 + 3, n - 1]] = [1.0, -2.0, 3.0, 4.0]
    indices, values = outputs(4)
    kernels.topk_select(x, 4, indices, values)
    assert indices.tolist() == [3, 2**24 + 1, 2**24 + 3, n - 1]
    assert values.tolist() == [1.0, -2.0, 3.0, 4.0]


@pytest.mark.parametrize("k", [0, 1, 15, 16, 17, 5003])
def test_scatter_adds_in_order(target, k):
    rng = np.random.default_rng(k)
    indices = rng.integers(0, 900, k).astype(np.uint32)  # some occur more than once
    values, out = rng.standard_normal(k).astype(np.float32), rng.standard_normal(900).astype(np.float32)
    expected = out.copy()
    for index, value in zip(indices, values, strict=True):
        expected[index] += np.float32(0.3) * value
    assert kernels.scatter_accumulate(indices, values, 0.3, out) is out
    assert out.tobytes() == expected.tobytes()


def test_scatter_refuses_a_bad_index_before_it_writes(target):
    out = np.zeros(10, np.float32)
    with pytest.raises(IndexError, match="indices holds 10, but out has 10 elements; out is unchanged"):
        kernels.scatter_accumulate(np.array([1, 10, 2], np.uint32), np.ones(3, np.float32), 1.0, out)
    assert not out.any()
    with pytest.raises(IndexError, match="out has 0 elements"):
        kernels.scatter_accumulate(np.zeros(1, np.uint32), np.ones(1, np.float32), 1.0, out[:0])


def test_wrong_arguments_are_named():
    x = np.zeros(8, np.float32)
    indices, values = outputs(3)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.8, got 9"):
        kernels.topk_select(x, 9, indices, values)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.8, got -1"):
        kernels.topk_select(x, -1, indices, values)
    with pytest.raises(ValueError, match=r"indices must have 2 elements \(k\), got 3"):
        kernels.topk_select(x, 2, indices, values)
    with pytest.raises(TypeError, match="indices must be a uint32 array, got int64"):
        kernels.topk_select(x, 3, indices.astype(np.int64), values)
    with pytest.raises(ValueError, match="x and values overlap"):
        kernels.topk_select(x, 3, indices, x[:3])
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.topk_feedback(x, x, 3, indices, values)
    with pytest.raises(ValueError, match=r"residual must have 8 elements"):
        kernels.topk_feedback(x, np.zeros(7, np.float32), 3, indices, values)
    with pytest.raises(TypeError, match="residual must be a float32 array, got None"):
        kernels.topk_feedback(x, None, 3, indices, values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight must be a finite"):
        kernels.scatter_accumulate(indices, values, float("nan"), x)
    values.flags.writeable = False
    with pytest.raises(ValueError, match="values is read-only"):
        kernels.topk_select(x, 3, indices, values)
