"""Robust averages: the definition's bits for every count of vectors, hostile values, awkward memory."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257]
COUNTS = [*range(1, 17), 17, 31, 32, 33, 50, 64, 65, 100, 255, 256]


def vectors(n, d, seed=0):
    rng = np.random.default_rng((n, d, seed))
    x = rng.standard_normal((n, d), dtype=np.float32)
    x[rng.random((n, d)) < 0.2] = np.float32(0.5)  # ties
    return list(x)


def in_order(x):
    rows = np.stack(x)
    return np.sort(np.where(np.isnan(rows), np.float32(np.inf), rows), axis=0)


def middle(s):
    n = len(s)
    half = np.float32(0.5)
    return s[n // 2] if n % 2 else half * s[n // 2 - 1] + half * s[n // 2]


def mean(rows):
    total = rows[0]
    for row in rows[1:]:
        total = total + row
    return total / np.float32(len(rows)) + np.float32(0)


def median(x, _=0):
    return middle(in_order(x)) + np.float32(0)


def trimmed_mean(x, f):
    return mean(in_order(x)[f : len(x) - f])


def mean_around_median(x, f):
    s, m = in_order(x), len(x) - f
    c = middle(s)
    nearer = [np.where(c - s[k] > s[k + m] - c, s[k + m], s[k]) for k in range(f)]
    return mean([*nearer, *s[f:m]])


RULES = [
    (lambda x, f, out=None: kernels.median(x, out), median),
    (kernels.trimmed_mean, trimmed_mean),
    (kernels.mean_around_median, mean_around_median),
]
rules = pytest.mark.parametrize(("ours", "reference"), RULES, ids=["median", "trimmed", "around"])


@rules
@pytest.mark.parametrize("n", COUNTS)
def test_gives_the_bits_of_its_definition(target, ours, reference, n):
    x = vectors(n, 203)
    for f in sorted({0, min(1, (n - 1) // 2), n // 4, (n - 1) // 2}):
        assert ours(x, f).tobytes() == reference(x, f).tobytes()


@rules
@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("n", [5, 8, 70])
def test_every_length(target, ours, reference, n, d):
    x = vectors(n, d)
    assert ours(x, 2).tobytes() == reference(x, 2).tobytes()


@rules
@pytest.mark.parametrize("offset", [0, 1, 5, 16])
def test_large_outputs_are_written_past_the_caches(target, ours, reference, offset):
    d = (1 << 22) + 77
    x = [v[:d] for v in vectors(3, d)]
    out = np.full(d + 17, 7, np.float32)
    view = out[offset : offset + d]
    assert ours(x, 1, view) is view
    assert view.tobytes() == reference(x, 1).tobytes()
    assert np.all(out[:offset] == 7)
    assert np.all(out[offset + d :] == 7)


@rules
@pytest.mark.parametrize("n", [4, 16, 40])
def test_the_order_of_the_vectors_does_not_matter(target, ours, reference, n):
    x = vectors(n, 100)
    expected = ours(x, 1)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(n)
        assert ours([x[k] for k in order], 1).tobytes() == expected.tobytes()


@rules
@pytest.mark.parametrize("n", [3, 8, 16, 33])
def test_up_to_f_values_of_any_kind_are_survived(target, ours, reference, n):
    f = (n - 1) // 2
    rng = np.random.default_rng(n)
    x = vectors(n, 400)
    poison = np.array([np.nan, -np.nan, np.inf, -np.inf, 3.4e38], np.float32)
    for coordinate in range(400):
        for k in rng.permutation(n)[:f]:
            x[k][coordinate] = rng.choice(poison)
    with np.errstate(invalid="ignore", over="ignore"):
        expected = reference(x, f)
    result = ours(x, f)
    assert result.tobytes() == expected.tobytes()
    assert np.all(np.abs(result) < 10)


@rules
def test_more_infinities_than_f_are_not_hidden(target, ours, reference):
    x = [np.full(20, value, np.float32) for value in (np.nan, np.inf, np.nan, 1.0, 2.0)]
    assert np.all(ours(x, 1) == np.inf)


@rules
def test_a_zero_is_positive(target, ours, reference):
    x = [np.array([-0.0, 0.0] * 20, np.float32) for _ in range(5)]
    assert not np.signbit(ours(x, 1)).any()


def test_two_middles_of_opposite_huge_values_do_not_overflow(target):
    big = np.full(3, 3.4e38, np.float32)
    np.testing.assert_array_equal(kernels.median([big, big]), big)
    np.testing.assert_array_equal(kernels.median([big, -big]), 0)


@rules
@pytest.mark.parametrize("n", [5, 20])
def test_any_input_may_be_the_output(target, ours, reference, n):
    for k in (0, n - 1):
        x = vectors(n, 1003)
        expected = reference(x, 2)
        assert ours(x, 2, x[k]).tobytes() == expected.tobytes()


@rules
def test_addresses_may_be_odd(target, unaligned, ours, reference):
    x = vectors(7, 301)
    out = unaligned(np.zeros(301, np.float32))
    ours([unaligned(v) for v in x], 2, out)
    assert out.tobytes() == reference(x, 2).tobytes()


def test_wrong_arguments_are_named():
    x = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="x must have 1 to 256 vectors, got 0"):
        kernels.median([])
    with pytest.raises(ValueError, match="1 to 256 vectors, got 257"):
        kernels.median([x] * 257)
    for f in (-1, 2, 3):
        with pytest.raises(ValueError, match=f"less than half of the 4 vectors, got {f}"):
            kernels.trimmed_mean([x] * 4, f)
        with pytest.raises(ValueError, match=f"less than half of the 4 vectors, got {f}"):
            kernels.mean_around_median([x] * 4, f)
    with pytest.raises(TypeError, match=r"x\[1\] must be a float32 array, got float64"):
        kernels.median([x, x.astype(np.float64)])
    with pytest.raises(ValueError, match=r"x\[1\] must have 8 elements \(as out has\), got 7"):
        kernels.median([x, x[:7]])
    with pytest.raises(ValueError, match="contiguous"):
        kernels.median([np.zeros(16, np.float32)[::2]])
    room = np.zeros(9, np.float32)
    with pytest.raises(ValueError, match=r"x\[0\] and out overlap"):
        kernels.median([room[1:]], room[:-1])
    room.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.median([x], room[:8])


@pytest.mark.parametrize("n", [1, 2, 7, 16, 17, 40])
@pytest.mark.parametrize("d", [0, 1, 63, 1000, 70_001])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_the_largest_magnitude_is_found_by_the_way(target, n, d, dtype):
    x = list(np.random.default_rng(n).standard_normal((n, d)).astype(dtype))
    expected = max((float(np.abs(v).max(initial=0)) for v in x), default=0.0)
    for average in (
        lambda largest: kernels.median(x, None, largest),
        lambda largest: kernels.trimmed_mean(x, (n - 1) // 2, None, largest),
        lambda largest: kernels.mean_around_median(x, (n - 1) // 2, None, largest),
    ):
        largest = np.full(1, np.nan)
        average(largest)
        assert largest[0] == expected
        if d:
            for bad in (np.nan, np.inf, -np.inf):
                before, x[n // 2][d // 2] = x[n // 2][d // 2], bad
                average(largest)
                assert largest[0] == np.inf
                x[n // 2][d // 2] = before
    with pytest.raises(ValueError, match="largest must have 1 element"):
        kernels.median(x, None, np.zeros(2))
