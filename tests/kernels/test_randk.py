"""Places that a key decides: the same on every instruction set, fair, and nothing else is touched."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 255, 256, 257, 100_003]
MASK = (1 << 64) - 1


def mixed(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference(n, chunk, k, key):
    """Places and the size of their stratum."""
    chunks = -(-n // chunk)
    places, sizes, first = [], [], 0
    for j in range(k):
        size = chunks // k + (j < chunks % k)
        chosen = first + ((mixed((key + (j + 1) * 0x9E3779B97F4A7C15) & MASK) * size) >> 64)
        here = range(chosen * chunk, min(n, (chosen + 1) * chunk))
        places += here
        sizes += [size] * len(here)
        first += size
    return np.array(places, np.int64), np.array(sizes, np.float32)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("chunk", [1, 3, 16])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_gathers_and_scatters_where_the_key_says(target, n, chunk, share, unaligned):
    key, k = mixed(n), int(share * -(-n // chunk))
    places, sizes = reference(n, chunk, k, key)
    assert kernels.randk_count(n, chunk, k, key) == places.size == np.unique(places).size
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    for scaled in (False, True):
        values = kernels.randk_gather(
            unaligned(x), chunk, k, key, scaled, unaligned(np.empty(places.size, np.float32))
        )
        np.testing.assert_array_equal(values, x[places] * (sizes if scaled else np.float32(1)))
    out = x.copy()
    expected = out.copy()
    expected[places] += np.float32(-0.7) * values
    assert kernels.randk_scatter(values, chunk, k, key, -0.7, out) is out
    assert out.tobytes() == expected.tobytes()


@pytest.mark.parametrize("n", SIZES)
def test_the_key_depends_on_every_bit_and_on_no_instruction_set(n):
    x, residual = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    a = x + residual
    found = set()
    for name in kernels.targets():
        kernels.set_target(name)
        mine = residual.copy()
        found |= {kernels.randk_key(a, None, 5), kernels.randk_key(x, mine, 5)}
        assert mine.tobytes() == a.tobytes()
    assert len(found) == 1
    keys = {key for key, _ in found} | {kernels.randk_key(a, None, 6)[0]}
    for place in {0, n // 2, n - 1} if n else ():
        for bit in (0, 12, 31):
            changed = a.copy()
            changed.view(np.uint32)[place] ^= np.uint32(1 << bit)
            keys.add(kernels.randk_key(changed, None, 5)[0])
    assert len(keys) == 2 + 3 * len({0, n // 2, n - 1} if n else ())
    if n > 200:  # two signs in one lane do not cancel
        changed = a.copy()
        changed[[3, 131]] *= -1
        assert kernels.randk_key(changed, None, 5)[0] not in keys


def test_every_place_has_its_chance(target):
    n, k, rounds = 103, 10, 4000
    hits = np.zeros(n, np.float32)
    for seed in range(rounds):
        kernels.randk_scatter(np.ones(k, np.float32), 1, k, mixed(seed), 1.0, hits)
    chance = np.concatenate([np.full(33, 1 / 11), np.full(70, 1 / 10)])
    deviation = (hits / rounds - chance) / np.sqrt(chance * (1 - chance) / rounds)
    assert np.abs(deviation).max() < 4.5
    assert abs(float(deviation.std()) - 1) < 0.25


def test_not_finite_entries_are_counted(target):
    x = np.zeros(1000, np.float32)
    x[[1, 2, 999]] = np.nan, np.inf, -np.inf
    assert kernels.randk_key(x, None, 0)[1] == 3
    assert kernels.randk_key(np.zeros(1000, np.float32), x, 0)[1] == 3


@pytest.mark.parametrize("n", [0, 1, 17, 5000, 100_003])
@pytest.mark.parametrize("m", [0, 1, 2, 7])
def test_adds_messages_in_one_sweep_as_one_by_one(target, n, m):
    rng = np.random.default_rng([n, m])
    shapes = [
        (chunk, share) for chunk, share in ((1, 3), (16, 2), (5, 1), (65_536, 1), (1, 100), (7000, 2), (3, 9))
    ]
    chunks = [chunk for chunk, _ in shapes[:m]]
    counts = [math.ceil(math.ceil(n / chunk) / share) for chunk, share in shapes[:m]]
    keys = [int(key) for key in rng.integers(0, 1 << 63, m)]
    weights = [0.9 - 0.4 * j for j in range(m)]
    values = [
        rng.standard_normal(kernels.randk_count(n, *one)).astype(np.float32)
        for one in zip(chunks, counts, keys, strict=True)
    ]
    out = rng.standard_normal(n).astype(np.float32)
    expected = out.copy()
    for one in zip(values, chunks, counts, keys, weights, strict=True):
        kernels.randk_scatter(*one, expected)
    assert kernels.randk_accumulate(values, chunks, counts, keys, weights, out) is out
    assert out.tobytes() == expected.tobytes()


def test_threads_change_no_bit_of_a_sum():
    n, chunks, counts, keys = 1_100_003, [1, 48, 7], [180_000, 7_000, 15_000], [3, 4, 1 << 63]
    rng = np.random.default_rng(0)
    values = [
        rng.standard_normal(kernels.randk_count(n, *shape), dtype=np.float32)
        for shape in zip(chunks, counts, keys, strict=True)
    ]
    start, found = rng.standard_normal(n, dtype=np.float32), set()
    for threads in (1, 2, 3, 7):
        kernels.set_num_threads(threads)
        out = kernels.randk_accumulate(values, chunks, counts, keys, [0.5, -0.2, 3.0], start.copy())
        found.add(out.tobytes())
    assert len(found) == 1


def test_wrong_arguments_are_named():
    x = np.zeros(10, np.float32)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.4, got 5"):
        kernels.randk_gather(x, 3, 5, 0, False, x[:5].copy())
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        kernels.randk_count(10, 0, 1, 0)
    with pytest.raises(ValueError, match="values must have 2 elements"):
        kernels.randk_gather(x, 1, 2, 0, False, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="x and values overlap"):
        kernels.randk_gather(x, 1, 2, 0, False, x[:2])
    with pytest.raises(ValueError, match="values and out overlap"):
        kernels.randk_scatter(x[:2], 1, 2, 0, 1.0, x)
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.randk_key(x, x, 0)
    with pytest.raises(TypeError, match="x must be a float32 array, got float64"):
        kernels.randk_key(np.zeros(3), None, 0)  # type: ignore[arg-type]  # the error is the point
    with pytest.raises(ValueError, match="weight must be a finite"):
        kernels.randk_scatter(np.zeros(2, np.float32), 1, 2, 0, np.inf, x)
    with pytest.raises(ValueError, match="equally many, got 1, 1, 1, 2 and 1"):
        kernels.randk_accumulate([x[:2]], [1], [2], [0, 0], [1.0], x)
    with pytest.raises(ValueError, match=r"values\[0\] and out overlap"):
        kernels.randk_accumulate([x[:2]], [1], [2], [0], [1.0], x)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.randk_accumulate([np.zeros(2, np.float32)], [1], [2], [0], [np.inf], x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.randk_scatter(np.zeros(2, np.float32), 1, 2, 0, 1.0, x)
