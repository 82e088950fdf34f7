"""Sparse selections and sums beside the same in eager torch and NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from pydec import kernels

from .cases import Case, vectors

BLOCK = 4096


def block_topk(n: int, fraction: float) -> Case:
    """Error feedback and the largest entries of every block; n is a multiple of the block, as torch needs."""
    x, start = vectors(2, n)
    k = round(BLOCK * fraction)
    entries = kernels.block_topk_count(n, BLOCK, k)
    residual, theirs = start.copy(), torch.from_numpy(start.copy())
    places, values = np.zeros(entries, np.uint16), np.zeros(entries, np.float32)
    tensor, magnitude = torch.from_numpy(x), torch.zeros(n // BLOCK, BLOCK)
    rows = theirs.view(-1, BLOCK)

    def ours() -> None:
        kernels.block_topk_select(x, residual, BLOCK, k, places, values)

    def peer() -> torch.Tensor:
        theirs.add_(tensor)
        torch.abs(rows, out=magnitude)
        chosen = torch.topk(magnitude, k, dim=1, sorted=False).indices
        sent = torch.gather(rows, 1, chosen)
        rows.scatter_(1, chosen, 0.0)
        return sent

    def check() -> None:
        residual[:] = start
        theirs.copy_(torch.from_numpy(start))
        ours()
        expected = np.sort(np.abs(peer().numpy()), axis=1)  # ties may be chosen otherwise
        np.testing.assert_array_equal(np.sort(np.abs(values).reshape(-1, k), axis=1), expected)

    params = {"n": n, "k": k, "block": BLOCK}
    return Case("block top-k with feedback", params, 12 * n + 6 * entries, ours, {"torch eager": peer}, check)


def threshold(n: int, fraction: float) -> Case:
    """Error feedback and what reaches a sampled threshold; the peer is DGC's rule.

    The peer samples 1 %, and at least what holds 16 of the largest: fewer say nothing about its threshold.
    """
    x, start = vectors(2, n)
    k = round(n * fraction)
    residual, theirs = start.copy(), torch.from_numpy(start.copy())
    room = np.zeros(16 * k, np.uint8)
    tensor, magnitude = torch.from_numpy(x), torch.zeros(n)
    sample_size = max(n // 100, min(n, math.ceil(16 / fraction)))
    sampled = torch.from_numpy(np.random.default_rng(0).integers(0, n, sample_size))
    count = 0

    def ours() -> None:
        nonlocal count
        count, _ = kernels.threshold_select(x, residual, k, (k + 1) // 2, room)

    def peer() -> torch.Tensor:
        theirs.add_(tensor)
        torch.abs(theirs, out=magnitude)
        sample = magnitude[sampled]
        bound = torch.topk(sample, max(1, round(fraction * sample.numel()))).values[-1]
        chosen = torch.nonzero(magnitude >= bound).view(-1)
        sent = theirs[chosen]
        theirs.index_fill_(0, chosen, 0.0)
        return sent

    def check() -> None:
        residual[:] = start
        theirs.copy_(torch.from_numpy(start))
        ours()
        sent = peer().numel()
        indices, values = room[: 4 * count].view(np.uint32), room[4 * count : 8 * count].view(np.float32)
        np.testing.assert_array_equal(values, (x + start)[indices])
        assert np.abs(residual).max() <= np.abs(values).min()
        assert k / 2 <= count <= 2 * k
        assert k / 3 <= sent <= 3 * k

    params = {"n": n, "k": k, "fraction": fraction}
    return Case("threshold with feedback", params, 12 * n + 8 * k, ours, {"torch eager": peer}, check)


def select(n: int, fraction: float) -> Case:
    """Exact top-k alone; NumPy's partition is the fastest selection that Python users have."""
    x = vectors(1, n)[0]
    k = round(n * fraction)
    indices, values = np.zeros(k, np.uint32), np.zeros(k, np.float32)
    tensor, magnitude, sent = torch.from_numpy(x), torch.zeros(n), torch.zeros(k)
    work, sizes = np.zeros(n, np.float32), np.zeros(n, np.float32)

    def ours() -> None:
        kernels.topk_select(x, k, indices, values)

    def by_torch() -> torch.Tensor:
        torch.abs(tensor, out=magnitude)
        chosen = torch.topk(magnitude, k, sorted=False).indices
        return torch.index_select(tensor, 0, chosen, out=sent)

    def by_partition() -> np.ndarray:
        np.abs(x, out=sizes)
        work[:] = sizes
        work.partition(n - k)
        return x[np.flatnonzero(sizes >= work[n - k])[:k]]

    def check() -> None:
        ours()
        np.testing.assert_array_equal(x[indices], values)
        for theirs in (by_torch().numpy(), by_partition()):
            np.testing.assert_array_equal(np.sort(np.abs(values)), np.sort(np.abs(theirs)))

    params = {"n": n, "k": k, "fraction": fraction}
    peers: dict[str, Callable[[], object]] = {"torch eager": by_torch, "numpy partition": by_partition}
    return Case("top-k", params, 4 * n + 8 * k, ours, peers, check)


def topk_int8(n: int, fraction: float) -> Case:
    """Top-k with feedback and 8-bit values, as bytes; the peer leaves its indices unpacked, as int64."""
    x, start = vectors(2, n)
    k, block = round(n * fraction), 256
    k -= k % block  # eager torch needs whole blocks
    residual, theirs = start.copy(), torch.from_numpy(start.copy())
    body = np.zeros(kernels.topk_int8_bound(n, k, block), np.uint8)
    tensor, magnitude, out = torch.from_numpy(x), torch.zeros(n), np.zeros(n, np.float32)
    length = 0

    def ours() -> None:
        nonlocal length
        length, _, _ = kernels.topk_int8_encode(x, residual, k, block, body)

    def peer() -> tuple[torch.Tensor, torch.Tensor]:
        theirs.add_(tensor)
        torch.abs(theirs, out=magnitude)
        chosen = torch.topk(magnitude, k, sorted=False).indices.sort().values
        values = theirs[chosen].view(-1, block)
        scales = values.abs().amax(dim=1, keepdim=True) / 127.0
        codes = (values / scales).round_()
        theirs[chosen] = (values - codes * scales).view(-1)
        return chosen, codes.to(torch.int8)

    def check() -> None:
        residual[:] = start
        theirs.copy_(torch.from_numpy(start))
        ours()
        chosen, codes = peer()
        assert kernels.topk_int8_decode(body[:length], k, block, out) == 0
        np.testing.assert_allclose(out + residual, x + start, atol=1e-5)
        sent = np.flatnonzero(out)
        assert np.isin(sent, chosen.numpy()).mean() > 0.9999  # ties may be chosen otherwise
        assert codes.numel() == k

    params = {"n": n, "k": k, "block": block, "bits": 18}
    return Case("top-k int8 with feedback", params, 12 * n + 3 * k, ours, {"torch eager": peer}, check)


def accumulate(n: int, fraction: float, m: int) -> Case:
    """The weighted sum of m sparse messages, in one sweep and one by one."""
    k = round(n * fraction)
    messages, weights = [], [0.5 / m] * m
    for x in vectors(m, n):
        indices, values = np.zeros(k, np.uint32), np.zeros(k, np.float32)
        kernels.topk_select(x, k, indices, values)
        messages.append((indices, values))
    out, one_by_one, theirs = np.zeros(n, np.float32), np.zeros(n, np.float32), torch.zeros(n)
    places = [torch.from_numpy(indices.astype(np.int64)) for indices, _ in messages]
    numbers = [torch.from_numpy(values) for _, values in messages]

    def ours() -> None:
        kernels.sparse_accumulate([i for i, _ in messages], [v for _, v in messages], weights, out)

    def single() -> None:
        for (indices, values), weight in zip(messages, weights, strict=True):
            kernels.scatter_accumulate(indices, values, weight, one_by_one)

    def by_torch() -> None:
        for place, number, weight in zip(places, numbers, weights, strict=True):
            theirs.index_add_(0, place, number, alpha=weight)

    def check() -> None:
        out[:], one_by_one[:] = 0, 0
        theirs.zero_()
        ours()
        single()
        by_torch()
        np.testing.assert_array_equal(out, one_by_one)
        np.testing.assert_allclose(theirs.numpy(), out, atol=1e-5)

    # Entries are read; lines of 16 elements that have one are read and written.
    touched = 8 * n * (1 - (1 - fraction) ** (16 * m))
    params = {"n": n, "k": k, "m": m}
    peers: dict[str, Callable[[], object]] = {"torch index_add_": by_torch, "one call each": single}
    return Case("sum of sparse messages", params, round(8 * k * m + touched), ours, peers, check)


MAKERS: list[Callable[[int], Case]] = [
    lambda n: select(n, 0.01),
    lambda n: select(n, 0.001),
    lambda n: topk_int8(n, 0.01),
    lambda n: block_topk(n, 0.01),
    lambda n: block_topk(n, 0.001),
    lambda n: threshold(n, 0.01),
    lambda n: threshold(n, 0.001),
    lambda n: accumulate(n, 0.01, 2),
    lambda n: accumulate(n, 0.01, 8),
]
