"""Packed gaps and 8-bit entries on the GPU: the CPU's bytes, faults and sums."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import kernels
from pydec.kernels import cuda


def chosen(n, k, seed=0):
    return np.sort(np.random.default_rng([n, k, seed]).choice(n, k, replace=False)).astype(np.uint32)


def packed(indices, n):
    out = np.empty(kernels.gaps_bound(n, indices.size), np.uint8)
    return out[: kernels.gaps_pack(indices, out)].copy()


def sequences():
    """Indices and what they are below: dense, sparse, of every width, at both ends, and of ragged groups."""
    yield np.arange(300, dtype=np.uint32), 300
    yield np.array([2**32 - 1], np.uint32), 2**32
    yield np.array([0, 2**32 - 1], np.uint32), 2**32
    for width in range(33):
        gaps = np.full(130, max(0, min(2**width - 1, (2**32 - 131) // 130)), np.uint64)
        gaps[-1] = min(2**width - 1, 2**32 - 1 - int(gaps[:-1].sum()) - 130)
        yield (np.cumsum(gaps + 1) - 1).astype(np.uint32), 2**32
    for k in (0, 1, 3, 4, 5, 127, 128, 129, 255, 2049, 5000):
        yield chosen(40_000, k), 40_000


def test_gaps(gpu, same):
    for indices, n in sequences():
        expected = packed(indices, n)
        out = gpu.room(kernels.gaps_bound(n, indices.size), np.uint8)
        length, faults = cuda.gaps_pack(gpu.tensor(indices), n, out)
        assert (int(length), int(faults)) == (expected.size, 0)
        same(out[: expected.size], expected)
        back = gpu.room(indices.size, np.uint32)
        assert int(cuda.gaps_unpack(gpu.tensor(expected), n, back)) == 0
        same(back, indices)


def test_indices_that_do_not_increase_are_counted(gpu, same):
    indices = np.array([5, 9, 9, 1, 700], np.uint32)
    out = gpu.room(kernels.gaps_bound(600, 5), np.uint8)
    before = out.clone()
    _, faults = cuda.gaps_pack(gpu.tensor(indices), 600, out)
    assert int(faults) == 3
    same(out, before.numpy())


@pytest.mark.parametrize("k", [3, 131, 1300])
def test_any_bytes_are_checked_as_on_the_cpu(gpu, same, k):
    rng = np.random.default_rng(k)
    n, indices = 9000, chosen(9000, k)
    good = packed(indices, n)
    seen = set()
    for trial in range(100):
        data = good.copy()
        kind = trial % 5
        if kind == 0:
            data = data[: rng.integers(0, data.size)]
        elif kind == 1:
            data = np.concatenate([data, np.zeros(1 + rng.integers(20), np.uint8)])
        elif kind == 2:
            data[rng.integers(0, -(-k // 128))] = rng.integers(0, 40)
        elif kind == 3:
            data[rng.integers(0, data.size)] ^= np.uint8(1 << rng.integers(8))
        below = n if kind < 4 else int(rng.integers(indices[-1] // 2, indices[-1] + 2))
        back, start = np.full(k, 7, np.uint32), gpu.tensor(np.full(k, 7, np.uint32))
        expected = kernels.gaps_unpack(data, below, back)
        assert int(cuda.gaps_unpack(gpu.tensor(data), below, start)) == expected
        same(start, back)
        seen.add(expected)
    assert seen == {0, 1, 2, 4}


def vector(n, seed):
    rng = np.random.default_rng([n, seed])
    return (rng.standard_normal(n) * 10.0 ** rng.uniform(-3, 3, n)).astype(np.float32)


def message(x, residual, k, block):
    body = np.empty(kernels.topk_int8_bound(x.size, k, block), np.uint8)
    results = kernels.topk_int8_encode(x, residual, k, block, body)
    return body[: results[0]].copy(), results


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("block", [16, 256])
def test_encode_and_decode(gpu, same, block, feedback):
    for n, k in ((0, 0), (1, 0), (1, 1), (5000, 50), (5000, 2500), (33_000, 300)):
        x, residual = vector(n, 1), vector(n, 2)
        if n > 1000:
            x[:900] = np.float32(1e-43)
        rest, left = residual.copy(), gpu.tensor(residual)
        body, expected = message(x, rest if feedback else None, k, block)
        room = gpu.room(kernels.topk_int8_bound(n, k, block), np.uint8)
        results = cuda.topk_int8_encode(gpu.tensor(x), left if feedback else None, k, block, room)
        assert tuple(map(int, results)) == expected
        same(room[: body.size], body)
        same(left, rest)
        out = gpu.room(n)
        assert int(cuda.topk_int8_decode(room[: body.size], k, block, out)) == 0
        decoded = np.empty(n, np.float32)
        assert kernels.topk_int8_decode(body, k, block, decoded) == 0
        same(out, decoded)


def test_tiny_values_keep_their_rule(gpu, same):
    x = (np.arange(-40, 40) * np.float32(2e-45)).astype(np.float32)
    body, expected = message(x, None, 64, 16)
    room = gpu.room(kernels.topk_int8_bound(80, 64, 16), np.uint8)
    assert tuple(map(int, cuda.topk_int8_encode(gpu.tensor(x), None, 64, 16, room))) == expected
    same(room[: body.size], body)


@pytest.mark.parametrize("feedback", [False, True])
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 3.4028235e38])
def test_what_cannot_be_sent_stays_in_the_residual(gpu, same, bad, feedback):
    x, residual = vector(3000, 1), np.zeros(3000, np.float32)
    x[17] = bad
    rest, left = residual.copy(), gpu.tensor(residual)
    _, expected = message(x, rest if feedback else None, 100, 16)
    room = gpu.room(kernels.topk_int8_bound(3000, 100, 16), np.uint8)
    results = cuda.topk_int8_encode(gpu.tensor(x), left if feedback else None, 100, 16, room)
    assert tuple(map(int, results))[1:] == expected[1:]
    assert sum(expected[1:]) == (0 if bad == 3.4028235e38 and expected[2] == 0 else 1)
    same(left, rest)


def test_messages_are_added_in_order_or_not_at_all(gpu, same):
    n, counts, blocks = 7000, [70, 700, 0, 7000], [16, 256, 16, 64]
    bodies = [
        message(vector(n, j), None, k, b)[0] for j, (k, b) in enumerate(zip(counts, blocks, strict=True))
    ]
    weights, start = [0.5, -0.25, 3.0, 1e-3], vector(n, 9)
    on_gpu = [gpu.tensor(body) for body in bodies]
    out, expected = gpu.tensor(start), start.copy()
    assert kernels.topk_int8_accumulate(bodies, counts, blocks, weights, expected) == (4, 0)
    assert tuple(map(int, cuda.topk_int8_accumulate(on_gpu, counts, blocks, weights, out))) == (4, 0)
    same(out, expected)

    rng = np.random.default_rng(3)
    codes, widths, seen = 4 * 3, 4 * 3 + 700, 0
    of_more = message(vector(9000, 1), None, 700, 256)[0]
    for trial in range(60):
        spoilt = bodies[1].copy()
        if trial % 6 == 0:
            spoilt = spoilt[: rng.integers(700, spoilt.size)]
        elif trial % 6 == 1:
            spoilt[codes + rng.integers(700)] = 0x80
        elif trial % 6 == 2:
            spoilt[widths + rng.integers(6)] += rng.integers(1, 30)
        elif trial % 6 == 3:
            spoilt[3 + 4 * rng.integers(3)] |= 0x80
        elif trial == 4:
            spoilt = of_more
        elif trial == 10:
            spoilt[-1] |= 0x80
        else:
            spoilt[rng.integers(widths, spoilt.size)] ^= np.uint8(1 << rng.integers(8))
        found = kernels.topk_int8_decode(spoilt, 700, 256, np.empty(n, np.float32))
        on_gpu[1] = gpu.tensor(spoilt)
        out = gpu.tensor(start)
        assert int(cuda.topk_int8_decode(on_gpu[1], 700, 256, out)) == found
        if found == 0:
            continue
        seen |= found
        same(out, start)
        results = cuda.topk_int8_accumulate(on_gpu, counts, blocks, weights, out)
        assert tuple(map(int, results)) == (1, found)
        same(out, start)
    assert seen == 31


def test_bad_arguments_are_named(gpu):
    x, body = gpu.room(80), gpu.room(400, np.uint8)
    with pytest.raises(ValueError, match=r"k must be in 0\.\.80, got 81"):
        cuda.topk_int8_encode(x, None, 81, 16, body)
    with pytest.raises(ValueError, match="block must be a positive multiple of 16, got 8"):
        cuda.topk_int8_encode(x, None, 8, 8, body)
    with pytest.raises(ValueError, match=r"body has 20 bytes, a message may need \d+; see topk_int8_bound"):
        cuda.topk_int8_encode(x, None, 64, 16, body[:20])
    with pytest.raises(ValueError, match="body must start at a multiple of 4 bytes"):
        cuda.topk_int8_decode(body[1:], 8, 16, x)
    with pytest.raises(ValueError, match=r"n must be in 8\.\.4294967296, got 7"):
        cuda.gaps_pack(gpu.room(8, np.uint32), 7, body)
