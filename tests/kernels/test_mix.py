"""mix rounds like its definition, on every instruction set, in place or not, aligned or not."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 4_500_003]


def vectors(m, n):
    rng = np.random.default_rng(m + n)
    return [rng.standard_normal(n, dtype=np.float32) for _ in range(m)], rng.standard_normal(m).tolist()


def reference(x, weights):
    total = np.float32(weights[0]) * x[0]
    for vector, weight in zip(x[1:], weights[1:], strict=True):
        total = total + np.float32(weight) * vector
    return total


@pytest.mark.parametrize("n", SIZES[:-1])
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 9, 13])
def test_rounds_like_its_definition(target, m, n):
    x, weights = vectors(m, n)
    assert kernels.mix(x, weights).tobytes() == reference(x, weights).tobytes()


@pytest.mark.parametrize("m", [3, 6])
def test_rounds_like_its_definition_on_large_vectors(target, m):
    x, weights = vectors(m, SIZES[-1])
    out = np.empty(SIZES[-1] + 1, np.float32)[1:]  # not aligned to a cache line
    assert kernels.mix(x, weights, out) is out
    assert out.tobytes() == reference(x, weights).tobytes()


@pytest.mark.parametrize("m", [1, 2, 4, 5, 10])
def test_any_input_may_be_the_output(target, m):
    for k in range(m):
        x, weights = vectors(m, 5003)
        expected = reference(x, weights)
        assert kernels.mix(x, weights, out=x[k]).tobytes() == expected.tobytes()


def test_a_vector_may_occur_twice(target):
    (a, b), weights = vectors(2, 100)
    expected = reference([a, b, a], [*weights, 0.5])
    assert kernels.mix([a, b, a], [*weights, 0.5], out=a).tobytes() == expected.tobytes()


def test_addresses_may_be_odd(target, unaligned):
    x, weights = vectors(3, 1001)
    out = unaligned(np.zeros(1001, np.float32))
    kernels.mix([unaligned(v) for v in x], weights, out)
    assert out.tobytes() == reference(x, weights).tobytes()


def test_nan_and_infinity_pass_through(target):
    x = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    np.testing.assert_array_equal(kernels.mix([x, x], [0.5, 0.5]), x)
    np.testing.assert_array_equal(np.isnan(kernels.mix([x, -x], [0.5, 0.5])), [True, True, True, False])


def test_wrong_arguments_are_named():
    x = np.zeros(8, np.float32)
    readonly = np.zeros(8, np.float32)
    readonly.flags.writeable = False
    with pytest.raises(ValueError, match="at least one vector"):
        kernels.mix([], [])
    with pytest.raises(ValueError, match="1 weights for 2 vectors"):
        kernels.mix([x, x], [1.0])
    with pytest.raises(ValueError, match=r"weights\[1\] must be a finite float32 number, got nan"):
        kernels.mix([x, x], [1.0, float("nan")])
    with pytest.raises(TypeError, match=r"x\[1\] must be a float32 array, got float64; use x\[1\]\.astype"):
        kernels.mix([x, x.astype(np.float64)], [0.5, 0.5])
    with pytest.raises(TypeError, match="must be a float32 array, got >f4"):
        kernels.mix([x.astype(">f4")], [0.5], x)
    with pytest.raises(TypeError, match="must be a NumPy array of float32, got list"):
        kernels.mix([x, [1.0]], [0.5, 0.5], x)  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"x\[1\] must have 8 elements \(as out has\), got 7"):
        kernels.mix([x, np.zeros(7, np.float32)], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"contiguous, got shape \(8,\) and strides \(8,\)"):
        kernels.mix([np.zeros(16, np.float32)[::2]], [1.0])
    with pytest.raises(ValueError, match=r"got shape \(2, 4\)"):
        kernels.mix([x.reshape(2, 4)], [1.0])
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.mix([x], [1.0], readonly)


def test_a_partial_overlap_is_refused_and_writes_nothing():
    room = np.arange(9, dtype=np.float32)
    with pytest.raises(ValueError, match=r"x\[0\] and out overlap in memory"):
        kernels.mix([room[:-1]], [2.0], out=room[1:])
    np.testing.assert_array_equal(room, np.arange(9, dtype=np.float32))
