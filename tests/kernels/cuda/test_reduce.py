"""Sums, distances and robust averages on the GPU have the bits of the CPU kernels."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda

SUM_SIZES = [0, 1, 15, 16, 17, 33, 65_535, 65_536, 65_537, 200_003]
SIZES = [0, 1, 7, 8, 9, 255, 256, 257, 1500]


@pytest.mark.parametrize("n", SUM_SIZES)
def test_sums(gpu, same, sample, n):
    x = [sample(n, k) for k in range(5)]
    on_gpu = [gpu.tensor(v, k % 2) for k, v in enumerate(x)]
    same(cuda.sqnorm(on_gpu[1]), np.array([kernels.sqnorm(x[1])]))
    same(cuda.sqdists(on_gpu[1:], on_gpu[0]), kernels.sqdists(x[1:], x[0]))
    spoilt = sample(n, 9, special=True)
    expected = kernels.checked_sqnorm(spoilt)
    total, bad = cuda.checked_sqnorm(gpu.tensor(spoilt, 1))
    same(total, np.array([expected[0]]))
    assert int(bad) == expected[1]
    assert int(cuda.count_nonfinite(gpu.tensor(spoilt, 1))) == expected[1]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 20])
def test_gram(gpu, same, sample, n, centred):
    for d in SIZES:
        x = [sample(d, k) for k in range(n)]
        on_gpu = [gpu.tensor(v, k % 3) for k, v in enumerate(x)]
        ours = cuda.gram(on_gpu, on_gpu[0] if centred else None)
        same(ours.reshape(-1), kernels.gram(x, x[0] if centred else None).reshape(-1))


def test_gram_of_more_tiles_than_the_workspace_holds(gpu, same, sample):
    d = 4097 * 256 + 3
    x = [sample(d, k).clip(-1e9, 1e9) for k in range(2)]
    assert gpu.module.gram_work(2, d) == 3 * 4096
    same(cuda.gram([gpu.tensor(v) for v in x]).reshape(-1), kernels.gram(x).reshape(-1))


@pytest.mark.parametrize("m", [1, 3, 64])
def test_clip(gpu, same, sample, m):
    rng = np.random.default_rng(m)
    weights, radii = rng.standard_normal(m), np.abs(rng.standard_normal(m)) * 20
    radii[0] = np.inf
    for d in SIZES[1:]:
        x = [rng.standard_normal(d).astype(np.float32) for _ in range(m)]
        centre = sample(d).clip(-10, 10)
        if m > 1:
            x[1][0] = np.inf
        on_gpu, on_gpu_centre = [gpu.tensor(v, k % 2) for k, v in enumerate(x)], gpu.tensor(centre)
        factors = cuda.clip_factors(cuda.sqdists(on_gpu, on_gpu_centre), weights, radii)
        cuda.clip_accumulate(on_gpu, factors, on_gpu_centre, on_gpu_centre)
        with np.errstate(invalid="ignore"):
            distances = np.sqrt(kernels.sqdists(x, centre))
        kernels.clip_accumulate(x, weights, distances, radii, centre, centre)
        same(on_gpu_centre, centre)


def votes(gpu, sample, n, d):
    x = [sample(d, k, special=True) for k in range(n)]
    return x, [gpu.tensor(v, k % 2) for k, v in enumerate(x)]


@pytest.mark.parametrize("n", [*range(1, 20), 31, 32, 33, 63, 100, 255, 256])
def test_robust_rules(gpu, same, sample, n):
    for d in (0, 1, 31, 32, 33, 300) if n <= 16 else (1, 33, 70):
        x, on_gpu = votes(gpu, sample, n, d)
        out = gpu.room(d)
        cuda.median(on_gpu, out)
        same(out, kernels.median(x))
        for f in sorted({0, 1, (n - 1) // 4, (n - 1) // 2} & set(range((n + 1) // 2))):
            cuda.trimmed_mean(on_gpu, f, out)
            same(out, kernels.trimmed_mean(x, f))
            cuda.mean_around_median(on_gpu, f, out)
            same(out, kernels.mean_around_median(x, f))


def test_a_robust_rule_may_overwrite_a_vector(gpu, same, sample):
    for n in (5, 40):
        x, on_gpu = votes(gpu, sample, n, 100)
        cuda.median(on_gpu, on_gpu[2])
        same(on_gpu[2], kernels.median(x))


def test_bad_arguments_are_named(gpu):
    a, doubles = gpu.room(8), gpu.room(4, np.float64)
    with pytest.raises(ValueError, match=r"x must be 1\.\.256 vectors, got 0"):
        cuda.median([], a)
    with pytest.raises(ValueError, match="below half of the 2 vectors, got 1"):
        cuda.trimmed_mean([a, gpu.room(8)], 1, gpu.room(8))
    with pytest.raises(ValueError, match=r"gram on CUDA takes 1\.\.256 vectors, got 257"):
        gpu.module.gram_f32([a] * 257, None, doubles, doubles)
    with pytest.raises(ValueError, match=r"work must have 1 elements \(sum_work\(n\)\), got 4"):
        gpu.module.sqnorm_f32(a, gpu.room(1, np.float64), None, doubles)
    with pytest.raises(ValueError, match=r"radii\[0\] must not be negative"):
        cuda.clip_factors(gpu.room(1, np.float64), [1.0], [-1.0])
    with pytest.raises(ValueError, match="overlap"):
        cuda.median([a[:4], a[4:]], a[2:6])
