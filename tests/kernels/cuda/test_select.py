"""Selections on the GPU find the entries that the CPU kernels find, and their sums have the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda

SIZES = [1, 5, 4097, 16_383, 40_003]


def shapes_of_data(n, sample):
    """Vectors that a sample represents well, badly, and not at all."""
    rng = np.random.default_rng(n)
    clustered = rng.standard_normal(n).astype(np.float32) * np.float32(1e-3)
    clustered[n // 3 : n // 3 + max(1, n // 50)] *= np.float32(1e6)
    few = np.zeros(n, np.float32)
    few[rng.integers(0, n, max(1, n // 1000))] = 1.0
    return {
        "usual": rng.standard_normal(n).astype(np.float32),
        "special": sample(n, special=True),
        "clustered": clustered,
        "ties": rng.integers(-3, 4, n).astype(np.float32),
        "equal": np.full(n, -2.5, np.float32),
        "few": few,
        "ascending": np.arange(n, dtype=np.float32),
    }


DATA = list(shapes_of_data(4, lambda n, special: np.zeros(n, np.float32)))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("feedback", [False, True])
def test_topk(gpu, same, sample, data, feedback):
    for n in SIZES:
        x = shapes_of_data(n, sample)[data]
        residual = np.roll(x, 1) * np.float32(0.5)
        for k in sorted({0, 1, n // 100, n // 3, n}):
            expected, expected_values = np.empty(k, np.uint32), np.empty(k, np.float32)
            rest, left = residual.copy(), gpu.tensor(residual, 1)
            if feedback:
                expected_bad = kernels.topk_feedback(x, rest, k, expected, expected_values)
            else:
                expected_bad = kernels.topk_select(x, k, expected, expected_values)
            indices, values = gpu.room(k, np.uint32), gpu.room(k)
            on_gpu = gpu.tensor(x, n % 2)
            bad = cuda.topk_select(on_gpu, k, indices, values, residual=left if feedback else None)
            assert int(bad) == expected_bad
            same(indices, expected)
            same(values, expected_values)
            same(left, rest)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("feedback", [False, True])
def test_threshold(gpu, same, sample, data, feedback):
    for n in SIZES:
        x = shapes_of_data(n, sample)[data]
        residual = np.roll(x, 1) * np.float32(0.5)
        for k, least, most in ((1, 1, 1), (n // 100, n // 200, n // 50), (n // 5, n // 5, n // 4)):
            k, most = max(k, 1), max(most, 1)
            least = min(max(least, 1), k)
            entries, rest = np.empty(8 * most, np.uint8), residual.copy()
            expected = kernels.threshold_select(x, rest if feedback else None, k, least, entries)
            left = gpu.tensor(residual)
            indices, values = gpu.room(most, np.uint32), gpu.room(most)
            found, bad = cuda.threshold_select(
                gpu.tensor(x), left if feedback else None, k, least, indices, values
            )
            assert (int(found), int(bad)) == expected
            count = expected[0]
            same(indices[:count], entries[: 4 * count].view(np.uint32))
            same(values[:count], entries[4 * count : 8 * count].view(np.float32))
            same(left, rest)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize(("block", "k"), [(1, 1), (7, 3), (256, 5), (1000, 10), (1000, 1000), (65_536, 600)])
def test_block_topk(gpu, same, sample, block, k, feedback, data):
    for n in (0, 1, block - 1, 3 * block, 3 * block + 1) if block < 65_536 else (70_000,):
        x = shapes_of_data(max(n, 1), sample)[data][:n]
        residual = np.roll(x, 1) * np.float32(0.5)
        count = kernels.block_topk_count(n, block, k)
        expected, expected_values = np.empty(count, np.uint16), np.empty(count, np.float32)
        rest, left = residual.copy(), gpu.tensor(residual)
        expected_bad = kernels.block_topk_select(
            x, rest if feedback else None, block, k, expected, expected_values
        )
        indices, values = gpu.room(count, np.uint16), gpu.room(count)
        on_gpu = gpu.tensor(x)
        bad = cuda.block_topk_select(on_gpu, left if feedback else None, block, k, indices, values)
        assert int(bad) == expected_bad
        same(indices, expected)
        same(values, expected_values)
        same(left, rest)
        out = gpu.room(n)
        assert int(cuda.block_topk_decode(indices, values, block, k, out)) == -(-n // block)
        same(out, kernels.block_topk_decode(expected, expected_values, block, k, np.empty(n, np.float32)))


def test_block_topk_messages_are_added_in_order_or_not_at_all(gpu, same):
    rng = np.random.default_rng(3)
    n, block, k, m = 5003, 100, 30, 40
    count = kernels.block_topk_count(n, block, k)
    messages = []
    for _ in range(m):
        indices, values = np.empty(count, np.uint16), np.empty(count, np.float32)
        x = (rng.standard_normal(n) * np.exp(rng.standard_normal(n))).astype(np.float32)
        kernels.block_topk_select(x, None, block, k, indices, values)
        messages.append((indices, values))
    weights, start = rng.standard_normal(m), rng.standard_normal(n).astype(np.float32)
    all_indices, all_values = zip(*messages, strict=True)
    on_gpu = [gpu.tensor(v) for v in all_indices], [gpu.tensor(v) for v in all_values]
    out = gpu.tensor(start)
    assert int(cuda.block_topk_accumulate(*on_gpu, weights, block, k, out)) == 51
    same(out, kernels.block_topk_accumulate(all_indices, all_values, weights, block, k, start.copy()))

    for place, value in ((k * 7 + 3, 100), (k * 9 + 2, 0), (count - 1, 3)):
        spoilt = all_indices[1].copy()
        spoilt[place] = value
        first = kernels.block_topk_check(spoilt, n, block, k)
        assert first < 51
        assert int(cuda.block_topk_check(gpu.tensor(spoilt), n, block, k)) == first
        on_gpu[0][1] = gpu.tensor(spoilt)
        out = gpu.tensor(start)
        assert int(cuda.block_topk_accumulate(*on_gpu, weights, block, k, out)) == first
        same(out, start)
        assert int(cuda.block_topk_decode(on_gpu[0][1], on_gpu[1][1], block, k, out)) == first
        same(out, start)


def sparse_messages(rng, n, m):
    made = []
    for _ in range(m):
        indices = np.flatnonzero(rng.random(n) < 0.2).astype(np.uint32)
        made.append((indices, rng.standard_normal(indices.size).astype(np.float32)))
    return zip(*made, strict=True)


def test_sparse_messages_are_added_in_order_or_not_at_all(gpu, same):
    rng = np.random.default_rng(4)
    n, m = 3001, 9
    indices, values = sparse_messages(rng, n, m)
    weights, start = rng.standard_normal(m), rng.standard_normal(n).astype(np.float32)
    on_gpu = [gpu.tensor(v, 1) for v in indices], [gpu.tensor(v, 1) for v in values]
    out = gpu.tensor(start)
    assert int(cuda.sparse_accumulate(*on_gpu, weights, out)) == 0
    same(out, kernels.sparse_accumulate(indices, values, weights, start.copy()))
    assert int(cuda.sparse_decode(on_gpu[0][0], on_gpu[1][0], out)) == 0
    same(out, kernels.sparse_decode(indices[0], values[0], np.empty(n, np.float32)))

    for place, value in ((-1, n), (-1, 0xFFFF_FFFF), (5, indices[3][4])):
        spoilt = indices[3].copy()
        spoilt[place] = value
        on_gpu[0][3] = gpu.tensor(spoilt)
        assert int(cuda.sparse_check(on_gpu[0][3], n)) >= 1
        out = gpu.tensor(start)
        assert int(cuda.sparse_accumulate(*on_gpu, weights, out)) >= 1
        same(out, start)
        assert int(cuda.sparse_decode(on_gpu[0][3], on_gpu[1][3], out)) >= 1
        same(out, start)


def test_integers_of_either_sign_are_taken(gpu, same):
    x = np.arange(100, dtype=np.float32)
    indices, values = gpu.room(3, np.int32), gpu.room(3)
    cuda.topk_select(gpu.tensor(x), 3, indices, values)
    same(indices, np.array([97, 98, 99], np.int32))


def test_bad_arguments_are_named(gpu):
    x, indices, values = gpu.room(8), gpu.room(2, np.uint32), gpu.room(2)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.8, got 9"):
        cuda.topk_select(x, 9, indices, values, work=gpu.room(1, np.uint8))
    with pytest.raises(ValueError, match=r"work must have \d+ elements \(topk_work\(n, k\)\), got 1"):
        cuda.topk_select(x, 2, indices, values, work=gpu.room(1, np.uint8))
    with pytest.raises(ValueError, match=r"least must be in 1\.\.1, got 2"):
        cuda.threshold_select(x, None, 1, 2, indices, values)
    with pytest.raises(ValueError, match=r"block must be in 1\.\.65536, got 0"):
        cuda.block_topk_select(x, None, 0, 1, gpu.room(2, np.uint16), values)
    with pytest.raises(TypeError, match="must be a uint32"):
        cuda.topk_select(x, 2, values, gpu.room(2))
