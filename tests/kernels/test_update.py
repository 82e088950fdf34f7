"""Fused mixing steps: the bits of the separate steps."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 2047, 2048, 2049]
LARGE = (1 << 22) + 2061  # written past the caches


def case(m, n):
    rng = np.random.default_rng((m, n))
    x = [rng.standard_normal(n, dtype=np.float32) for _ in range(m)]
    others = [rng.standard_normal(n, dtype=np.float32) for _ in range(4)]
    return x, rng.random(m).tolist(), others


def push_sum(x, weights, state, out):
    ratio = state[0]
    kernels.push_sum_mix(x, weights, 0.7, out, ratio)
    return out, ratio


def push_sum_by_steps(x, weights, state):
    mixed = kernels.mix(x, weights)
    return mixed, mixed / np.float32(0.7)


def tracking(x, weights, state, out):
    gradient, previous = state[:2]
    kernels.tracking_mix(x, weights, gradient, previous, out)
    return out, previous


def tracking_by_steps(x, weights, state):
    gradient, previous = state[:2]
    return (kernels.mix(x, weights) + gradient) - previous, gradient


def momentum(x, weights, state, out):
    gradient, velocity = state[:2]
    kernels.momentum_mix(x, weights, gradient, velocity, out, momentum=0.9, lr=0.05)
    return out, velocity


def momentum_by_steps(x, weights, state):
    gradient, velocity = state[:2]
    velocity = np.float32(0.9) * velocity + gradient
    return kernels.mix(x, weights) + np.float32(-0.05) * velocity, velocity


STEPS = [(push_sum, push_sum_by_steps), (tracking, tracking_by_steps), (momentum, momentum_by_steps)]
steps = pytest.mark.parametrize(("fused", "separate"), STEPS, ids=["push-sum", "tracking", "momentum"])


def assert_same(found, expected):
    assert [a.tobytes() for a in found] == [a.tobytes() for a in expected]


@steps
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 9])
def test_gives_the_bits_of_separate_steps(target, fused, separate, m, n):
    x, weights, (*state, out) = case(m, n)
    expected = separate(x, weights, state)
    assert_same(fused(x, weights, state, out), expected)


@steps
@pytest.mark.parametrize("m", [2, 6])
def test_any_input_may_be_the_output(target, fused, separate, m):
    for k in range(m):
        x, weights, state = case(m, 5003)
        expected = separate(x, weights, state)
        assert_same(fused(x, weights, state, x[k]), expected)


@steps
def test_large_outputs(target, fused, separate):
    x, weights, state = case(2, LARGE)
    expected = separate(x, weights, state)
    room = np.full(LARGE + 2, 7, np.float32)
    assert_same(fused(x, weights, state, room[1:-1]), expected)
    assert room[0] == room[-1] == 7


@steps
def test_addresses_may_be_odd(target, unaligned, fused, separate):
    x, weights, state = case(5, 1001)
    expected = separate(x, weights, state)
    odd = [unaligned(v) for v in state]
    assert_same(fused([unaligned(v) for v in x], weights, odd, odd[3]), expected)


@steps
def test_nan_and_infinity_pass_through(target, fused, separate):
    x, weights, state = case(2, 40)
    x[0][3], x[1][5] = np.nan, np.inf
    result = fused(x, weights, state, state[3])[0]
    assert np.flatnonzero(~np.isfinite(result)).tolist() == [3, 5]


def test_trackers_keep_the_sum_of_gradients(target):
    """What gradient tracking is for: the mean tracker is the mean gradient after every mix."""
    rng = np.random.default_rng(0)
    weights = np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]])
    previous = list(rng.standard_normal((3, 100), dtype=np.float32))
    trackers = [g.copy() for g in previous]
    for _ in range(5):
        gradients = list(rng.standard_normal((3, 100), dtype=np.float32))
        old = [y.copy() for y in trackers]
        for i in range(3):
            kernels.tracking_mix(old, weights[i].tolist(), gradients[i], previous[i], trackers[i])
        np.testing.assert_allclose(np.sum(trackers, axis=0), np.sum(gradients, axis=0), atol=1e-5)


def test_wrong_arguments_are_named():
    x, y, z = (np.zeros(8, np.float32) for _ in range(3))
    with pytest.raises(ValueError, match="at least one vector, got none"):
        kernels.push_sum_mix([], [], 1.0, y, z)
    with pytest.raises(ValueError, match="2 weights for 1 vectors"):
        kernels.push_sum_mix([x], [0.5, 0.5], 1.0, y, z)
    for divisor in (0.0, -1.0, 1e-60):
        with pytest.raises(ValueError, match="divisor must be a positive float32 number"):
            kernels.push_sum_mix([x], [0.5], divisor, y, z)
    with pytest.raises(ValueError, match="divisor must be a finite"):
        kernels.push_sum_mix([x], [0.5], float("nan"), y, z)
    with pytest.raises(ValueError, match="ratio and out overlap"):
        kernels.push_sum_mix([x], [0.5], 1.0, y, y)
    with pytest.raises(ValueError, match=r"x\[0\] and ratio overlap"):
        kernels.push_sum_mix([x], [0.5], 1.0, y, x)
    with pytest.raises(ValueError, match="gradient and previous overlap"):
        kernels.tracking_mix([x], [0.5], y, y, z)
    with pytest.raises(ValueError, match="gradient must have 8 elements"):
        kernels.tracking_mix([x], [0.5], y[:7], y, z)
    with pytest.raises(TypeError, match="velocity must be a float32 array, got float64"):
        kernels.momentum_mix([x], [0.5], y, np.zeros(8), z, momentum=0.9, lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lr must be a finite"):
        kernels.momentum_mix([x], [0.5], y, np.zeros_like(x), z, momentum=0.9, lr=float("inf"))
    z.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.tracking_mix([x], [0.5], y, np.zeros_like(x), z)
    with pytest.raises(ValueError, match="previous is read-only"):
        kernels.tracking_mix([x], [0.5], y, z, np.zeros_like(x))
