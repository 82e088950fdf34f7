"""Kernels beside what users run today, such as eager torch, on the same data: what to call, how to check it.

Every contender has its buffers allocated and touched before, so that no one pays for fresh pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pydec import kernels

BLOCK = 256


@dataclass(frozen=True)
class Case:
    """One kernel and its peers on the same input. To add a peer is to add an entry to ``peers``.

    Args:
        name: what is computed.
        params: sizes and settings.
        n_bytes: read and written at the least, each byte once.
        ours: runs the kernel.
        peers: run the same in something else, by its name; each gets a row.
        check: raises AssertionError unless all give the right answer; runs them afresh.
        left_out: peers that cannot run here, and why in a few words; each gets a row that says so.
        allocating: peers that ask for memory of the result's size in every call.
    """

    name: str
    params: dict[str, Any]
    n_bytes: int
    ours: Callable[[], object]
    peers: Mapping[str, Callable[[], object]]
    check: Callable[[], None]
    left_out: Mapping[str, str] = field(default_factory=dict)
    allocating: tuple[str, ...] = ()


def vectors(count: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(n)
    return [rng.standard_normal(n, dtype=np.float32) for _ in range(count)]


def mix(n: int, m: int = 3) -> Case:
    """Weighted sum of m vectors to another."""
    x, weights = vectors(m, n), [1 / m] * m
    out, theirs = np.zeros(n, np.float32), torch.zeros(n)
    tensors = [torch.from_numpy(v) for v in x]

    def peer() -> None:
        torch.mul(tensors[0], weights[0], out=theirs)
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            theirs.add_(tensor, alpha=weight)

    def ours() -> None:
        kernels.mix(x, weights, out)

    def check() -> None:
        ours()
        peer()
        expected = sum(np.float64(weight) * v for v, weight in zip(x, weights, strict=True))
        np.testing.assert_allclose(out, expected, atol=1e-6)
        np.testing.assert_allclose(theirs.numpy(), expected, atol=1e-6)

    return Case(f"mix of {m}", {"n": n, "m": m}, 4 * n * (m + 1), ours, {"torch eager": peer}, check)


def int8_encode(n: int) -> Case:
    """Blockwise quantisation; n is a multiple of the block, which eager torch needs."""
    x = vectors(1, n)[0]
    codes, scales = np.zeros(n, np.int8), np.zeros(n // BLOCK, np.float32)
    rows = torch.from_numpy(x).view(-1, BLOCK)
    work, their_codes = torch.zeros_like(rows), torch.zeros(rows.shape, dtype=torch.int8)
    their_scales = torch.zeros(n // BLOCK, 1)

    def ours() -> None:
        kernels.int8_encode(x, codes, scales)

    def peer() -> None:
        torch.abs(rows, out=work)
        torch.amax(work, dim=1, keepdim=True, out=their_scales)
        their_scales.div_(127.0)
        torch.div(rows, their_scales, out=work)
        work.round_()
        their_codes.copy_(work)

    def check() -> None:
        ours()
        peer()
        np.testing.assert_array_equal(scales, their_scales.numpy()[:, 0])
        differing = np.count_nonzero(codes != their_codes.numpy().reshape(-1))
        assert differing <= n * 1e-4, f"{differing} of {n} codes differ"  # x * (1 / s) and x / s round apart

    return Case(
        "int8 encode", {"n": n, "block": BLOCK}, 5 * n + 4 * scales.size, ours, {"torch eager": peer}, check
    )


def int8_accumulate(n: int, m: int) -> Case:
    """Decode m messages and add them, weighted, to a vector."""
    codes, scales = [], []
    for v in vectors(m, n):
        codes.append(np.zeros(n, np.int8))
        scales.append(np.zeros(n // BLOCK, np.float32))
        kernels.int8_encode(v, codes[-1], scales[-1])
    weights = [0.25 / m] * m
    out, theirs, work = np.zeros(n, np.float32), torch.zeros(n), torch.zeros(n // BLOCK, BLOCK)
    their_codes = [torch.from_numpy(c).view(-1, BLOCK) for c in codes]
    their_scales = [torch.from_numpy(s).view(-1, 1) for s in scales]

    def ours() -> None:
        kernels.int8_accumulate(codes, scales, weights, out)

    def peer() -> None:
        for code, scale, weight in zip(their_codes, their_scales, weights, strict=True):
            work.copy_(code)
            work.mul_(scale)
            theirs.add_(work.view(-1), alpha=weight)

    def check() -> None:
        out[:] = 0
        theirs.zero_()
        ours()
        peer()
        np.testing.assert_allclose(out, theirs.numpy(), atol=1e-6)
        terms = [w * np.repeat(s, BLOCK) * c for c, s, w in zip(codes, scales, weights, strict=True)]
        np.testing.assert_allclose(out, np.sum(terms, axis=0), atol=1e-6)

    params = {"n": n, "m": m, "block": BLOCK}
    return Case(
        "int8 decode + accumulate",
        params,
        (8 + m) * n + 4 * m * scales[0].size,
        ours,
        {"torch eager": peer},
        check,
    )


def topk(n: int, fraction: float) -> Case:
    """Error feedback and exact top-k."""
    x, start = vectors(2, n)
    k = round(n * fraction)
    residual, theirs = start.copy(), torch.from_numpy(start.copy())
    indices, values = np.zeros(k, np.uint32), np.zeros(k, np.float32)
    tensor, magnitude, sent = torch.from_numpy(x), torch.zeros(n), torch.zeros(k)

    def ours() -> None:
        kernels.topk_feedback(x, residual, k, indices, values)

    def peer() -> torch.Tensor:
        theirs.add_(tensor)
        torch.abs(theirs, out=magnitude)
        chosen = torch.topk(magnitude, k, sorted=False).indices
        torch.index_select(theirs, 0, chosen, out=sent)
        theirs.index_fill_(0, chosen, 0.0)
        return chosen

    def check() -> None:
        residual[:] = start
        theirs.copy_(torch.from_numpy(start))
        ours()
        expected = np.abs((x + start)[np.sort(peer().numpy())])  # ties may be chosen otherwise
        np.testing.assert_array_equal(np.sort(np.abs(values)), np.sort(expected))
        np.testing.assert_array_equal(residual[indices], 0)
        np.testing.assert_array_equal((x + start)[indices], values)

    # x and residual are read; residual and the selection are written.
    params = {"n": n, "k": k, "fraction": fraction}
    return Case("top-k with feedback", params, 12 * n + 8 * k, ours, {"torch eager": peer}, check)


def sqdist(n: int) -> Case:
    """Squared distance of two vectors."""
    x, y = vectors(2, n)
    a, b, work = torch.from_numpy(x), torch.from_numpy(y), torch.zeros(n)

    def ours() -> float:
        return kernels.sqdist(x, y)

    def peer() -> torch.Tensor:
        torch.sub(a, b, out=work)
        return torch.dot(work, work)

    def check() -> None:
        difference = x.astype(np.float64) - y
        expected = float(difference @ difference)
        np.testing.assert_allclose(ours(), expected, rtol=1e-12)
        np.testing.assert_allclose(peer().item(), expected, rtol=1e-2)  # float32 sums: off by 5e-4 at 16 Mi

    return Case("squared distance", {"n": n}, 8 * n, ours, {"torch eager": peer}, check)
