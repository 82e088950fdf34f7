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
