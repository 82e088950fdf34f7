"""Mixes and casts on the GPU have the bits of the CPU kernels, for buckets of all lengths at once."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda

SIZES = [0, 1, 3, 4, 5, 1023, 1024, 1025, 5000]
HALVES = ["bf16", "fp16"]


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("m", [1, 2, 4, 5, 17, 64])
def test_mix(gpu, same, sample, m, shift):
    weights = np.random.default_rng(m).standard_normal(m)
    buckets = [[sample(n, k, special=True) for k in range(m)] for n in SIZES]
    x = [[gpu.tensor(v, shift if k == 0 else 0) for k, v in enumerate(bucket)] for bucket in buckets]
    out = [gpu.room(n) for n in SIZES]
    cuda.mix(x, weights, out)
    for bucket, ours in zip(buckets, out, strict=True):
        same(ours, kernels.mix(bucket, weights))


def test_mix_in_place_and_of_more_buckets_than_a_launch_takes(gpu, same, sample):
    buckets = [[sample(n, 0), sample(n, 1)] for n in range(150)]
    x = [[gpu.tensor(v) for v in bucket] for bucket in buckets]
    cuda.mix(x, [0.25, 0.75], [bucket[1] for bucket in x])
    for bucket, (_, ours) in zip(buckets, x, strict=True):
        same(ours, kernels.mix(bucket, [0.25, 0.75]))


@pytest.mark.parametrize("shift", [0, 1])
def test_updates(gpu, same, sample, shift):
    weights = [0.5, 0.3, 0.2]
    for n in SIZES:
        x = [sample(n, k) for k in range(3)]
        g, state = sample(n, 8), sample(n, 9)
        theirs, on_gpu = [gpu.tensor(v, shift) for v in x], gpu.tensor(g)
        out, ours_state = gpu.room(n), gpu.tensor(state)
        expected, expected_state = np.empty(n, np.float32), np.empty(n, np.float32)

        cuda.push_sum_mix([theirs], weights, 0.7, [out], [ours_state])
        kernels.push_sum_mix(x, weights, 0.7, expected, expected_state)
        same(out, expected)
        same(ours_state, expected_state)

        ours_state, expected_state = gpu.tensor(state), state.copy()
        cuda.tracking_mix([theirs], weights, [on_gpu], [ours_state], [out])
        kernels.tracking_mix(x, weights, g, expected_state, expected)
        same(out, expected)
        same(ours_state, expected_state)

        ours_state, expected_state = gpu.tensor(state), state.copy()
        cuda.momentum_mix([theirs], weights, [on_gpu], [ours_state], [theirs[0]], momentum=0.9, lr=0.1)
        kernels.momentum_mix(x, weights, g, expected_state, expected, momentum=0.9, lr=0.1)
        same(theirs[0], expected)
        same(ours_state, expected_state)


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("half", HALVES)
def test_cast_encode(gpu, same, sample, half, feedback, shift):
    x = [sample(n, special=True) for n in SIZES]
    residual = [sample(n, 1) for n in SIZES]
    codes = [gpu.room(n, np.uint16, shift) for n in SIZES]
    left = [gpu.tensor(v, shift) for v in residual] if feedback else None
    bad = cuda.cast_encode([gpu.tensor(v) for v in x], codes, half, residual=left)
    expected_bad = 0
    for k, v in enumerate(x):
        expected, rest = np.empty(v.size, np.uint16), residual[k].copy() if feedback else None
        expected_bad += kernels.cast_encode(v, expected, half, residual=rest)
        finite = np.isfinite(v) | (not feedback)  # codes of a NaN that arithmetic made keep its payload
        same(codes[k].cpu().numpy().view(np.uint16)[finite], expected[finite])
        if feedback:
            same(left[k], rest)
    assert int(bad) == expected_bad


@pytest.mark.parametrize("m", [1, 2, 3, 16, 19])
@pytest.mark.parametrize("half", HALVES)
def test_cast_decode_and_accumulate(gpu, same, half, m):
    rng = np.random.default_rng(m)
    weights = rng.standard_normal(m)
    codes = [[rng.integers(0, 1 << 16, n).astype(np.uint16) for _ in range(m)] for n in SIZES]
    on_gpu = [[gpu.tensor(v, k % 2) for k, v in enumerate(bucket)] for bucket in codes]
    out = [gpu.tensor(rng.standard_normal(n).astype(np.float32)) for n in SIZES]
    before = [v.cpu().numpy().copy() for v in out]
    cuda.cast_accumulate(on_gpu, weights, out, half)
    for ours, start, bucket in zip(out, before, codes, strict=True):
        same(ours, kernels.cast_accumulate(bucket, weights, start, half))
    cuda.cast_decode([bucket[0] for bucket in on_gpu], out, half)
    for ours, bucket in zip(out, codes, strict=True):
        same(ours, kernels.cast_decode(bucket[0], np.empty(bucket[0].size, np.float32), half))
        found = cuda.cast_count_nonfinite(gpu.tensor(bucket[0], 1), half)
        assert int(found) == kernels.cast_count_nonfinite(bucket[0], half)


def test_bad_arguments_are_named(gpu):
    a, b = gpu.room(8), gpu.room(9)
    with pytest.raises(ValueError, match=r"1\.\.64 vectors, got 0"):
        cuda.mix([[]], [], [a])
    with pytest.raises(ValueError, match=r"1\.\.64 vectors, got 65"):
        cuda.mix([[a] * 65], [1.0] * 65, [a])
    with pytest.raises(ValueError, match=r"x must be a list of 2 tensors, got 1"):
        cuda.mix([[a]], [0.5, 0.5], [a])
    with pytest.raises(ValueError, match=r"must have 8 elements \(as out has\), got 9"):
        cuda.mix([[a, b]], [0.5, 0.5], [gpu.room(8)])
    with pytest.raises(ValueError, match="overlap in memory"):
        cuda.mix([[a[:4]]], [1.0], [a[1:5]])
    with pytest.raises(ValueError, match="finite"):
        cuda.mix([[a]], [float("nan")], [a])
    with pytest.raises(TypeError, match="must be a float32"):
        cuda.mix([[gpu.room(8, np.float64)]], [1.0], [a])
    with pytest.raises(ValueError, match="half must be bf16 or fp16"):
        cuda.cast_decode([gpu.room(8, np.uint16)], [a], "fp8")
