"""Entries at places that a key decides: the CPU's key, places and sums, with the key on either side."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda


@pytest.mark.parametrize("n", [0, 1, 127, 128, 129, 4000, 65_536, 65_537, 200_001])
@pytest.mark.parametrize("feedback", [False, True])
def test_randk_key(gpu, same, sample, n, feedback):
    x, residual = sample(n, special=True), sample(n, 1)
    rest, left = residual.copy(), gpu.tensor(residual)
    expected = kernels.randk_key(x, rest if feedback else None, 77)
    if feedback and expected[1]:  # the payload of a NaN is hashed too, and is the processor's own
        x = sample(n)
        rest = residual.copy()
        expected = kernels.randk_key(x, rest, 77)
    key, bad = cuda.randk_key(gpu.tensor(x), left if feedback else None, 77)
    assert int(key) % 2**64 == expected[0]
    assert int(bad) == expected[1]
    same(left, rest)


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(
    ("n", "chunk", "k"), [(1, 1, 1), (1000, 1, 37), (1003, 8, 126), (1003, 8, 5), (64, 8, 0)]
)
def test_randk_gather_and_scatter(gpu, same, sample, n, chunk, k, scaled, on_device):
    x, start = sample(n), sample(n, 1)
    for key in (0, 1, 2**64 - 1, 0x1234_5678_9ABC_DEF0):
        count = kernels.randk_count(n, chunk, k, key)
        expected = kernels.randk_gather(x, chunk, k, key, scaled, np.empty(count, np.float32))
        given = gpu.tensor(np.array([key], np.uint64).view(np.int64)) if on_device else key
        values, out = gpu.room(k * chunk if on_device else count), gpu.tensor(start)
        cuda.randk_gather(gpu.tensor(x), chunk, k, given, scaled, values)
        same(values[:count], expected)
        cuda.randk_scatter(values, chunk, k, given, 0.3, out)
        same(out, kernels.randk_scatter(expected, chunk, k, key, 0.3, start.copy()))


@pytest.mark.parametrize("on_device", [False, True])
def test_messages_are_added_in_order(gpu, same, sample, on_device):
    n, start = 5003, sample(5003, 9)
    shapes = [(1, 300, 7), (8, 500, 8), (8, 626, 9), (64, 0, 10), (5003, 1, 11)]
    values, keys = [], []
    for chunk, k, key in shapes:
        chosen = np.empty(kernels.randk_count(n, chunk, k, key), np.float32)
        values.append(kernels.randk_gather(sample(n, key), chunk, k, key, True, chosen))
        keys.append(gpu.tensor(np.array([key], np.int64)) if on_device else key)
    chunks, counts, numbers = zip(*shapes, strict=True)
    weights = np.random.default_rng(1).standard_normal(len(shapes))
    expected = kernels.randk_accumulate(values, chunks, counts, numbers, weights, start.copy())
    out = gpu.tensor(start)
    room = [
        np.concatenate([v, np.zeros(k * chunk - v.size, np.float32)])
        for v, chunk, k in zip(values, chunks, counts, strict=True)
    ]
    given = room if on_device else values
    cuda.randk_accumulate([gpu.tensor(v) for v in given], chunks, counts, keys, weights, out)
    same(out, expected)
    cuda.randk_accumulate([], [], [], [], [], out)
    same(out, expected)


def test_bad_arguments_are_named(gpu):
    x = gpu.room(8)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.4, got 5"):
        cuda.randk_gather(x, 2, 5, 1, False, gpu.room(10))
    with pytest.raises(ValueError, match="must be equally many, got 1, 1, 2 and 1"):
        cuda.randk_accumulate([gpu.room(2)], [1], [2], [1, 2], [0.5], x)
    with pytest.raises(ValueError, match=r"values\[0\] must have 2 elements"):
        cuda.randk_accumulate([gpu.room(3)], [1], [2], [1], [0.5], x)
