"""Low rank on the GPU: the CPU's directions, factors and sums, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda

SHAPES = [(0, 1), (1, 1), (15, 16), (100, 7), (1003, 40), (4096, 64), (3001, 3001), (500, 1), (40_001, 208)]


def matrix(n, seed=0):
    """Numbers with leading directions, a row and a column of zeros, and rows of very different sizes."""
    rng = np.random.default_rng([n, seed])
    x = rng.standard_normal(n) * 10.0 ** rng.integers(-6, 7, n)
    x[rng.random(n) < 0.1] = 0
    x[: n // 9] = 0
    return x.astype(np.float32)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("n", [0, 1, 16, 1000, 16_385, 40_003])
def test_start(gpu, same, n, feedback):
    x, residual = matrix(n), matrix(n, 1)
    for count in (0, 1, 1000):
        expected = kernels.powersgd_start(x, residual if feedback else None, 77, np.empty(count, np.float32))
        start = gpu.room(count)
        cuda.powersgd_start(gpu.tensor(x, 1), gpu.tensor(residual) if feedback else None, 77, start)
        same(start, expected)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize(("n", "columns"), SHAPES)
def test_iterate(gpu, same, n, columns, feedback):
    rows = -(-n // columns)
    x, residual = matrix(n), matrix(n, 1)
    for rank in (1, 3, 8) if n < 40_000 else (4,):
        rest, left = residual.copy(), gpu.tensor(residual)
        p, q = np.zeros(rank * rows, np.float32), matrix(rank * columns, rank)
        if rank > 2:
            q[columns : 2 * columns] = q[:columns]  # a direction that vanishes
        gpu_p, gpu_q = gpu.room(p.size), gpu.tensor(q)
        assert kernels.powersgd_iterate(x, rest if feedback else None, columns, p, q) == 0
        bad = cuda.powersgd_iterate(gpu.tensor(x), left if feedback else None, columns, gpu_p, gpu_q)
        assert int(bad) == 0
        same(gpu_p, p)
        same(gpu_q, q)
        same(left, rest)


@pytest.mark.parametrize("feedback", [False, True])
def test_what_is_not_finite_is_counted(gpu, same, feedback):
    x, residual = matrix(1003), matrix(1003, 1)
    x[[3, 4, 1002]] = [np.nan, np.inf, -np.inf]
    rest, left = residual.copy(), gpu.tensor(residual)
    p, q = np.zeros(2 * 26, np.float32), np.zeros(2 * 40, np.float32)
    gpu_p, gpu_q = gpu.tensor(p), gpu.tensor(q)
    expected = kernels.powersgd_iterate(x, rest if feedback else None, 40, p, q)
    bad = cuda.powersgd_iterate(gpu.tensor(x), left if feedback else None, 40, gpu_p, gpu_q)
    assert int(bad) == expected == 3
    same(left, rest)


@pytest.mark.parametrize(("n", "columns"), SHAPES)
def test_decode_and_accumulate(gpu, same, n, columns):
    rows, ranks = -(-n // columns), [1, 2, 4, 8]
    left = [matrix(rank * rows, rank) for rank in ranks]
    right = [matrix(rank * columns, 10 + rank) for rank in ranks]
    on_gpu = [gpu.tensor(v) for v in left], [gpu.tensor(v) for v in right]
    for k in range(len(ranks)):
        out = gpu.room(n)
        cuda.powersgd_decode(on_gpu[0][k], on_gpu[1][k], columns, out)
        same(out, kernels.powersgd_decode(left[k], right[k], columns, np.empty(n, np.float32)))
    weights, start = [0.5, -0.25, 3.0, 0.0], matrix(n, 30)
    out = gpu.tensor(start, 1)
    cuda.powersgd_accumulate(*on_gpu, weights, columns, out)
    same(out, kernels.powersgd_accumulate(left, right, weights, columns, start.copy()))


def test_more_messages_than_a_launch_takes(gpu, same):
    left, right = [matrix(2 * 10, k) for k in range(70)], [matrix(2 * 10, 100 + k) for k in range(70)]
    weights, start = np.linspace(-1, 1, 70), matrix(100, 5)
    out = gpu.tensor(start)
    cuda.powersgd_accumulate([gpu.tensor(v) for v in left], [gpu.tensor(v) for v in right], weights, 10, out)
    same(out, kernels.powersgd_accumulate(left, right, weights, 10, start.copy()))


def test_bad_arguments_are_named(gpu):
    x, p, q = gpu.room(100), gpu.room(10), gpu.room(10)
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        cuda.powersgd_iterate(x, None, 0, p, q)
    with pytest.raises(ValueError, match=r"right must have 1\.\.8 times columns=10 elements, got 90"):
        cuda.powersgd_iterate(x, None, 10, p, gpu.room(90))
    with pytest.raises(ValueError, match="left must have 10 elements"):
        cuda.powersgd_decode(gpu.room(11), q, 10, x)
    with pytest.raises(ValueError, match="overlap in memory"):
        cuda.powersgd_iterate(x, x, 10, p, x[:10])
