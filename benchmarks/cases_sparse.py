"""Sparse selections with error feedback beside the same in eager torch."""

from __future__ import annotations

import math

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
