"""DeMo's tiles on the GPU: the CPU's records, residuals and tiles, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda

VALUES = ["float32", "bf16", "int8"]


def signal(n, seed=0):
    """Smooth parts, noise, equal coefficients, and a tile of zeros."""
    rng = np.random.default_rng([n, seed])
    x = np.sin(np.arange(n) * 0.01 * (seed + 1)) + rng.standard_normal(n) * 0.1
    x[:300] = 0
    x[n // 2 : n // 2 + 4096] = 1.0
    return x.astype(np.float32)


def encoded(x, residual, side, k, values, beta=1.0):
    records = np.empty(kernels.demo_bytes(x.size, side, k, values), np.uint8)
    return records, kernels.demo_encode(x, residual, records, side, k, values, beta)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("values", VALUES)
@pytest.mark.parametrize(("side", "k"), [(16, 1), (16, 9), (16, 256), (32, 17), (64, 32), (64, 4096)])
def test_encode_and_decode(gpu, same, side, k, values, feedback):
    tile = side * side
    for n in (0, 1, tile, 3 * tile + 5) if side < 64 else (2 * tile + 77,):
        x, residual = signal(n), signal(n, 1)
        rest, left = residual.copy(), gpu.tensor(residual)
        expected, expected_bad = encoded(x, rest if feedback else None, side, k, values, 0.75)
        records = gpu.room(expected.size, np.uint8, shift=1)
        bad = cuda.demo_encode(gpu.tensor(x), left if feedback else None, records, side, k, values, 0.75)
        assert tuple(bad.tolist()) == expected_bad
        same(records, expected)
        same(left, rest)
        tiles = -(-n // tile)
        assert int(cuda.demo_check(records, n, side, k, values)) == tiles
        out = gpu.room(n)
        assert int(cuda.demo_decode(records, out, side, k, values)) == tiles
        same(out, kernels.demo_decode(expected, np.empty(n, np.float32), side, k, values))


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("values", VALUES)
def test_tiles_that_cannot_be_sent(gpu, same, values, feedback):
    x, residual = signal(5 * 256), signal(5 * 256, 1)
    x[[300, 301, 600]] = [np.nan, np.inf, -np.inf]
    x[800:900] = np.float32(3e37)
    x[1100:1110] = np.float32(1e-40)
    rest, left = residual.copy(), gpu.tensor(residual)
    expected, expected_bad = encoded(x, rest if feedback else None, 16, 9, values)
    assert expected_bad == (3, 1)
    records = gpu.room(expected.size, np.uint8)
    bad = cuda.demo_encode(gpu.tensor(x), left if feedback else None, records, 16, 9, values)
    assert tuple(bad.tolist()) == expected_bad
    same(records, expected)
    same(left, rest)


@pytest.mark.parametrize("values", VALUES)
def test_messages_are_added_in_order_or_not_at_all(gpu, same, values):
    n, side, k, m = 2 * 1024 + 99, 32, 21, 66
    messages = [encoded(signal(n, j), None, side, k, values)[0] for j in range(3)] * (m // 3)
    weights, start = np.random.default_rng(1).standard_normal(m), signal(n, 7)
    on_gpu = [gpu.tensor(v) for v in messages]
    out = gpu.tensor(start)
    assert int(cuda.demo_accumulate(on_gpu, weights, out, side, k, values)) == 3
    same(out, kernels.demo_accumulate(messages, weights, start.copy(), side, k, values))

    record = messages[0].size // 3
    for place, byte in (
        (record - 1, 0x80),
        (2 * record - 14, 0xFF),
        (2 * record + 3, 0x7F),
        (record + k, 0x80),
    ):
        spoilt = messages[1].copy()
        spoilt[place : place + 2] |= byte
        first = kernels.demo_check(spoilt, n, side, k, values)
        assert int(cuda.demo_check(gpu.tensor(spoilt), n, side, k, values)) == first
        if first == 3:
            continue
        out = gpu.tensor(start)
        on_gpu[1] = gpu.tensor(spoilt)
        assert int(cuda.demo_accumulate(on_gpu, weights, out, side, k, values)) == first
        assert int(cuda.demo_decode(on_gpu[1], out, side, k, values)) == first
        same(out, start)


@pytest.mark.parametrize("values", VALUES)
def test_any_bytes_are_checked_as_on_the_cpu(gpu, values):
    rng = np.random.default_rng(5)
    good = encoded(signal(600), None, 16, 13, values)[0]
    for _ in range(60):
        spoilt = good.copy()
        spoilt[rng.integers(0, good.size, 1 + rng.integers(3))] ^= np.uint8(1 << rng.integers(8))
        expected = kernels.demo_check(spoilt, 600, 16, 13, values)
        assert int(cuda.demo_check(gpu.tensor(spoilt), 600, 16, 13, values)) == expected


def test_bad_arguments_are_named(gpu):
    x, records = gpu.room(8), gpu.room(7, np.uint8)
    with pytest.raises(ValueError, match="side must be 16, 32 or 64, got 8"):
        cuda.demo_encode(x, None, records, 8, 1)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.256, got 257"):
        cuda.demo_encode(x, None, records, 16, 257)
    with pytest.raises(ValueError, match="records must have 5 elements"):
        cuda.demo_decode(records, x, 16, 1, "float32")
    with pytest.raises(ValueError, match="values must be float32, bf16 or int8, got 'fp8'"):
        cuda.demo_check(records, 8, 16, 1, "fp8")
