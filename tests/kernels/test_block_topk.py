"""Selection in every block is exact on every instruction set; its inverse checks first."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels

SIZES = [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4096, 4097, 100_003]


def reference(a, block, k):
    places, values, rest = [], [], a.copy()
    for first in range(0, a.size, block):
        part = a[first : first + block]
        count = -(-k * part.size // block)
        chosen = np.sort(np.argsort(-np.abs(part), kind="stable")[:count])  # stable: ties to the lowest
        places.append(chosen.astype(np.uint16))
        values.append(part[chosen])
        rest[first + chosen] = 0
    return np.concatenate([np.empty(0, np.uint16), *places]), np.concatenate([a[:0], *values]), rest


def outputs(n, block, k):
    count = kernels.block_topk_count(n, block, k)
    return np.full(count, 60_000, np.uint16), np.full(count, np.nan, np.float32)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("block", "k"), [(64, 1), (64, 64), (100, 7), (256, 3), (4096, 41), (65536, 700)])
def test_selects_exactly_in_every_block(target, n, block, k):
    x, residual = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    a = x + residual
    places, values, rest = reference(a, block, k)
    got = outputs(n, block, k)
    assert kernels.block_topk_select(a, None, block, k, *got) == 0
    assert (got[0].tobytes(), got[1].tobytes()) == (places.tobytes(), values.tobytes())
    got = outputs(n, block, k)
    assert kernels.block_topk_select(x, residual, block, k, *got) == 0
    assert (got[0].tobytes(), got[1].tobytes()) == (places.tobytes(), values.tobytes())
    assert residual.tobytes() == rest.tobytes()


HARD = {
    "equal": lambda n, rng: np.full(n, -0.25),
    "zero": lambda n, rng: np.zeros(n),
    "one in 500": lambda n, rng: np.where(rng.random(n) < 0.002, 1.0, 0.0),
    "few values": lambda n, rng: rng.integers(-3, 4, n),
    "growing": lambda n, rng: np.exp(np.linspace(-80, 80, n)),
    "shrinking": lambda n, rng: np.exp(np.linspace(80, -80, n)),
    "alternating scales": lambda n, rng: (
        rng.standard_normal(n) * np.where(np.arange(n) // 256 % 2, 1e30, 1e-30)
    ),
    "denormal": lambda n, rng: rng.integers(-99, 99, n) * 1e-44,
    "at the limit": lambda n, rng: np.full(n, 3.4e38) * rng.choice([-1, 1], n),
}


@pytest.mark.parametrize("name", HARD)
def test_no_data_defeats_the_guess(target, name):
    x = HARD[name](10_003, np.random.default_rng(5)).astype(np.float32)
    for k in (1, 9, 256):
        places, values, _ = reference(x, 256, k)
        got = outputs(x.size, 256, k)
        assert kernels.block_topk_select(x, None, 256, k, *got) == 0
        assert (got[0].tobytes(), got[1].tobytes()) == (places.tobytes(), values.tobytes())


def test_not_finite_entries_are_counted_and_come_first(target):
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    x[[5, 700]], x[[7, 999]] = np.nan, [np.inf, -np.inf]
    x[6] = np.uint32(0x7FFFFFFF).view(np.float32)  # the largest magnitude of all
    places, values = outputs(1000, 256, 3)
    assert kernels.block_topk_select(x, None, 256, 3, places, values) == 5
    assert places[:3].tolist() == [5, 6, 7]
    assert {700 - 512, 999 - 768} <= set(places[6:].tolist())
    assert kernels.block_topk_select(np.full(1000, x[6]), None, 256, 3, places, values) == 1000
    assert places[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("m", [0, 1, 3, 9])
def test_accumulates_in_order_at_odd_addresses(target, n, m, unaligned):
    rng = np.random.default_rng(n)
    out = rng.standard_normal(n).astype(np.float32)
    expected, messages, weights = out.copy(), [], [0.3 * (j - 1.5) for j in range(m)]
    for weight in weights:
        got = outputs(n, 256, 5)
        kernels.block_topk_select(rng.standard_normal(n).astype(np.float32), None, 256, 5, *got)
        messages.append([unaligned(part) for part in got])
        dense = kernels.block_topk_decode(*messages[-1], 256, 5, unaligned(np.full(n, np.nan, np.float32)))
        assert np.count_nonzero(dense) == got[0].size
        expected = expected + np.float32(weight) * dense
    out = unaligned(out)
    assert (
        kernels.block_topk_accumulate(
            [p for p, _ in messages], [v for _, v in messages], weights, 256, 5, out
        )
        is out
    )
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("at", "value", "wrong"),
    [(1, 0, 0), (4, 64, 0), (7, 2, 1), (9, 64, 1), (14, 3, 2), (12, 65_535, 2), (11, 0, 2)],
)
def test_places_are_checked_before_anything_is_written(target, at, value, wrong):
    places = np.array([0, 5, 6, 7, 63, 1, 2, 3, 4, 63, 0, 1, 2, 3, 35], np.uint16)
    n, k = 3 * 64, 5
    assert kernels.block_topk_check(places, n, 64, k) == 3
    bad = places.copy()
    bad[at] = value
    assert kernels.block_topk_check(bad, n, 64, k) == wrong
    out = np.full(n, 7.0, np.float32)
    values = np.ones(15, np.float32)
    with pytest.raises(IndexError, match=f"leave the block in block {wrong}; out is unchanged"):
        kernels.block_topk_decode(bad, values, 64, k, out)
    with pytest.raises(IndexError, match=r"indices\[1\] do not increase"):
        kernels.block_topk_accumulate([places, bad], [values, values], [1.0, 1.0], 64, k, out)
    assert np.all(out == 7.0)


def test_wrong_arguments_are_named():
    x = np.zeros(100, np.float32)
    places, values = outputs(100, 64, 2)
    with pytest.raises(ValueError, match=r"block must be in 1\.\.65536, got 65537"):
        kernels.block_topk_select(x, None, 65_537, 2, places, values)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.64, got 65"):
        kernels.block_topk_select(x, None, 64, 65, places, values)
    with pytest.raises(ValueError, match=r"indices must have 4 elements \(k for each block\), got 3"):
        kernels.block_topk_select(x, None, 64, 2, places[:3], values)
    with pytest.raises(TypeError, match="indices must be a uint16 array, got int64"):
        kernels.block_topk_select(x, None, 64, 2, places.astype(np.int64), values)
    with pytest.raises(ValueError, match="x and residual overlap"):
        kernels.block_topk_select(x, x, 64, 2, places, values)
    with pytest.raises(ValueError, match=r"weights\[0\] must be a finite"):
        kernels.block_topk_accumulate([places], [values], [np.nan], 64, 2, x)
    with pytest.raises(ValueError, match="equally many"):
        kernels.block_topk_accumulate([places], [], [1.0], 64, 2, x)
    x.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        kernels.block_topk_decode(places, values, 64, 2, x)
