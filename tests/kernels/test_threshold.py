"""What reaches a sampled threshold, within bounds, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [1, 15, 16, 17, 255, 256, 257, 16_383, 16_384, 70_003, 300_001]
DATA = {
    "normal": lambda n, rng: rng.standard_normal(n),
    "heavy tail": lambda n, rng: np.clip(rng.standard_cauchy(n), -1e30, 1e30),
    "equal": lambda n, rng: np.full(n, 0.5),
    "zero": lambda n, rng: np.zeros(n),
    "one place": lambda n, rng: np.where(np.arange(n) == n // 3, 2.0, 0.0),
    "few values": lambda n, rng: rng.integers(-3, 4, n),
    "large at the end": lambda n, rng: np.where(np.arange(n) > n - n // 50, 5.0, rng.random(n)),
}


def select(x, residual, k, least, most):
    entries = np.full(8 * most, 0xAB, np.uint8)
    count, bad = kernels.threshold_select(x, residual, k, least, entries)
    assert np.all(entries[8 * count :] == 0xAB)
    return entries[: 4 * count].view(np.uint32), entries[4 * count : 8 * count].view(np.float32), bad


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("n", SIZES)
def test_sends_the_largest_and_keeps_within_bounds(name, n):
    x, rest = (DATA[name](n, np.random.default_rng([n, seed])).astype(np.float32) for seed in (0, 1))
    a = x + rest
    for k in sorted({1, -(-n // 100), -(-n // 3), n}):
        least, most = -(-k // 2), min(n, 2 * k)
        results = set()
        for target in kernels.targets():
            kernels.set_target(target)
            indices, values, bad = select(a, None, k, least, most)
            residual = rest.copy()
            again = select(x, residual, k, least, most)
            assert (again[0].tobytes(), again[1].tobytes(), bad) == (indices.tobytes(), values.tobytes(), 0)
            expected = a.copy()
            expected[indices] = 0
            assert residual.tobytes() == expected.tobytes()
            results.add((indices.tobytes(), values.tobytes()))
        assert len(results) == 1
        assert least <= indices.size <= most
        assert np.all(indices[1:] > indices[:-1])
        assert values.tobytes() == a[indices].tobytes()
        dropped = np.delete(np.abs(a), indices)
        assert dropped.size == 0 or dropped.max() <= np.abs(values).min()
        if name == "normal" and k > 500 and n > 16_384:
            assert abs(indices.size - k) < 0.3 * k
        if indices.size in (least, most) and name != "equal":
            order = np.sort(np.argsort(-np.abs(a), kind="stable")[: indices.size])
            ties = np.count_nonzero(np.abs(a) == np.abs(values).min())
            assert ties > 1 or np.array_equal(order, indices)


def test_bounds_take_the_lowest_of_equal_entries(target):
    x = np.full(20_000, -1.0, np.float32)
    indices, _, _ = select(x, None, 200, 100, 400)  # all reach the threshold: exactly the 400 are sent
    assert indices.tolist() == list(range(400))
    indices, _, _ = select(np.zeros(20_000, np.float32), None, 200, 100, 400)  # none is: exactly the 100
    assert indices.tolist() == list(range(100))


@pytest.mark.parametrize("n", [1000, 70_003])
def test_not_finite_entries_are_counted(target, n):
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    x[[5, 900]], x[[7, 999]] = np.nan, [np.inf, -np.inf]
    assert select(x, None, 10, 5, 20)[2] == 4
    assert select(np.full(n, np.nan, np.float32), None, 10, 5, 20)[2] == n


def test_addresses_may_be_odd(target, unaligned):
    x = np.random.default_rng(0).standard_normal(20_001).astype(np.float32)
    entries = unaligned(np.zeros(3200, np.uint8))
    count, _ = kernels.threshold_select(unaligned(x), None, 200, 100, entries)
    indices, values, _ = select(x, None, 200, 100, 400)
    assert entries[: 8 * count].tobytes() == indices.tobytes() + values.tobytes()


def test_wrong_arguments_are_named():
    x = np.zeros(10, np.float32)
    room = np.zeros(40, np.uint8)
    assert kernels.threshold_select(x[:0], None, 0, 0, room[:0]) == (0, 0)
    for size in (0, 39, 88):
        with pytest.raises(ValueError, match=rf"room for 1..10 entries of 8 bytes, got {size} bytes"):
            kernels.threshold_select(x, None, 2, 1, np.zeros(size, np.uint8))
    with pytest.raises(ValueError, match=r"k must be in 1\.\.5, got 6"):
        kernels.threshold_select(x, None, 6, 1, room)
    with pytest.raises(ValueError, match=r"least must be in 1\.\.2, got 3"):
        kernels.threshold_select(x, None, 2, 3, room)
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.threshold_select(x, x, 2, 1, room)
    with pytest.raises(ValueError, match="x and entries overlap"):
        kernels.threshold_select(x, None, 2, 1, x.view(np.uint8)[:16])
    with pytest.raises(TypeError, match="entries must be a uint8 array"):
        kernels.threshold_select(x, None, 2, 1, x.copy())  # type: ignore[arg-type]
    room.flags.writeable = False
    with pytest.raises(ValueError, match="entries is read-only"):
        kernels.threshold_select(x, None, 2, 1, room)
