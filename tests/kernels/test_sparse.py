"""Sparse messages are checked, decoded and added like a loop over their entries."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

RANGE = 1 << 14  # elements of ``out`` that the kernels work on at a time


def message(n, k, seed):
    rng = np.random.default_rng([n, k, seed])
    indices = np.sort(rng.choice(n, k, replace=False)).astype(np.uint32)
    return indices, rng.standard_normal(k).astype(np.float32)


SHAPES = [(0, 0), (1, 1), (40, 15), (40, 16), (40, 17), (RANGE, 300), (RANGE + 1, RANGE + 1), (100_003, 5003)]


@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_decodes_to_zeros_and_values(target, n, k):
    indices, values = message(n, k, 0)
    expected = np.zeros(n, np.float32)
    expected[indices] = values
    out = np.full(n, np.nan, np.float32)
    assert kernels.sparse_decode(indices, values, out) is out
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("m", [0, 1, 2, 3, 9])
def test_adds_messages_in_order(target, n, k, m):
    messages = [message(n, max(0, k - 3 * j), j) for j in range(m)]
    weights = [0.3 - 0.17 * j for j in range(m)]
    out = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    expected = out.copy()
    for (indices, values), weight in zip(messages, weights, strict=True):
        expected[indices] += np.float32(weight) * values
    got = kernels.sparse_accumulate([i for i, _ in messages], [v for _, v in messages], weights, out)
    assert got is out
    assert out.tobytes() == expected.tobytes()


def test_entries_at_the_edges_of_pieces_are_kept(target):
    n = 3 * RANGE + 2
    places = [0, RANGE - 1, RANGE, RANGE + 1, 2 * RANGE - 1, 2 * RANGE, 3 * RANGE, n - 1]
    indices, values = np.array(places, np.uint32), np.arange(1, 9, dtype=np.float32)
    out = kernels.sparse_decode(indices, values, np.empty(n, np.float32))
    assert np.flatnonzero(out).tolist() == places
    kernels.sparse_accumulate([indices, indices[1:]], [values, values[1:]], [1.0, -2.0], out)
    assert out[indices].tolist() == [2.0, *[0.0] * 7]


def test_addresses_may_be_odd(target, unaligned):
    indices, values = message(1000, 100, 0)
    out = unaligned(np.zeros(1000, np.float32))
    kernels.sparse_accumulate([unaligned(indices)] * 2, [unaligned(values)] * 2, [1.0, 0.5], out)
    np.testing.assert_array_equal(out[indices], values + np.float32(0.5) * values)
    kernels.sparse_decode(unaligned(indices), unaligned(values), out)
    np.testing.assert_array_equal(out[indices], values)
    assert kernels.sparse_check(unaligned(indices), unaligned(values)) == (True, 0)


@pytest.mark.parametrize("k", [0, 1, 2, 15, 16, 17, 33, 1000])
def test_check_finds_disorder_and_what_is_not_finite_anywhere(target, k):
    indices = np.arange(k, dtype=np.uint32) * 4_000_000
    values = np.ones(k, np.float32)
    assert kernels.sparse_check(indices, values) == (True, 0)
    for place in sorted({0, 1, k // 2, k - 2, k - 1}):
        if 0 < place < k:
            bad = indices.copy()
            bad[place] = bad[place - 1]
            assert kernels.sparse_check(bad, values) == (False, 0)
        if 0 <= place < k:
            for number in (np.nan, np.inf, -np.inf):
                spoilt = values.copy()
                spoilt[place] = number
                assert kernels.sparse_check(indices, spoilt) == (True, 1)
    if k > 1:
        assert kernels.sparse_check(indices[::-1].copy(), np.full(k, np.nan, np.float32)) == (False, k)


def test_bad_places_are_refused_before_anything_is_written(target):
    values = np.ones(2, np.float32)
    out = np.zeros(10, np.float32)
    good, large, falling = (np.array(pair, np.uint32) for pair in ((1, 9), (1, 10), (3, 3)))
    with pytest.raises(IndexError, match="indices holds 10, but out has 10 elements; out is unchanged"):
        kernels.sparse_decode(large, values, out)
    with pytest.raises(IndexError, match="indices must increase; out is unchanged"):
        kernels.sparse_decode(falling, values, out)
    with pytest.raises(IndexError, match=r"indices\[1\] holds 10, but out has 10 elements"):
        kernels.sparse_accumulate([good, large], [values, values], [1.0, 1.0], out)
    with pytest.raises(IndexError, match=r"indices\[1\] must increase"):
        kernels.sparse_accumulate([good, falling], [values, values], [1.0, 1.0], out)
    assert not out.any()


def test_wrong_arguments_are_named():
    indices, values, out = np.arange(3, dtype=np.uint32), np.ones(3, np.float32), np.zeros(8, np.float32)
    with pytest.raises(ValueError, match=r"values must have 3 elements \(as indices has\), got 2"):
        kernels.sparse_check(indices, values[:2])
    with pytest.raises(TypeError, match="indices must be a uint32 array, got int64"):
        kernels.sparse_decode(indices.astype(np.int64), values, out)
    with pytest.raises(ValueError, match="equally many, got 1, 1 and 2"):
        kernels.sparse_accumulate([indices], [values], [1.0, 2.0], out)
    with pytest.raises(ValueError, match=r"values\[0\] must have 3 elements"):
        kernels.sparse_accumulate([indices], [values[:2]], [1.0], out)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.sparse_accumulate([indices], [values], [float("nan")], out)
    with pytest.raises(ValueError, match=r"values\[0\] and out overlap"):
        kernels.sparse_accumulate([indices], [out[:3]], [1.0], out)
    with pytest.raises(ValueError, match="values and out overlap"):
        kernels.sparse_decode(indices, out[:3], out)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.sparse_accumulate([indices], [values], [1.0], out)
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.sparse_decode(indices, values, out)
