"""Robust rules, distances and fused mixing steps beside eager torch on the same data."""

from __future__ import annotations

import numpy as np
import torch

from pydec import kernels

from .cases import BLOCK, Case, vectors


def _tensors(x: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(v) for v in x]


def median(n: int, count: int) -> Case:
    """Coordinate median; torch takes the mean of the two middles of a sort of vectors stacked before."""
    x, out = vectors(count, n), np.zeros(n, np.float32)
    stacked, theirs = torch.from_numpy(np.stack(x)), torch.zeros(n)

    def ours() -> None:
        kernels.median(x, out)

    def peer() -> None:
        ordered = torch.sort(stacked, dim=0).values
        torch.add(ordered[(count - 1) // 2], ordered[count // 2], out=theirs)
        theirs.mul_(0.5)

    def check() -> None:
        ours()
        peer()
        np.testing.assert_allclose(out, theirs.numpy(), rtol=1e-6)

    return Case(
        f"median of {count}", {"n": n, "m": count}, 4 * n * (count + 1), ours, {"torch eager": peer}, check
    )


def trimmed_mean(n: int, count: int, f: int) -> Case:
    """Trimmed mean; torch sorts vectors that were stacked before."""
    x, out = vectors(count, n), np.zeros(n, np.float32)
    stacked, theirs = torch.from_numpy(np.stack(x)), torch.zeros(n)

    def ours() -> None:
        kernels.trimmed_mean(x, f, out)

    def peer() -> None:
        torch.mean(torch.sort(stacked, dim=0).values[f : count - f], dim=0, out=theirs)

    def check() -> None:
        ours()
        peer()
        np.testing.assert_allclose(out, theirs.numpy(), atol=1e-6)

    params = {"n": n, "m": count, "f": f}
    return Case(f"trimmed mean of {count}", params, 4 * n * (count + 1), ours, {"torch eager": peer}, check)


def distances(n: int, count: int) -> Case:
    """Squared distances of all pairs, as Krum needs them; torch.cdist takes vectors stacked before."""
    x = vectors(count, n)
    stacked, out = torch.from_numpy(np.stack(x)), np.zeros((count, count))

    def ours() -> np.ndarray:
        return kernels.squared_distances(kernels.gram(x, x[0], out))

    def peer() -> torch.Tensor:
        return torch.cdist(stacked, stacked).square_()

    def check() -> None:
        rows = np.stack(x).astype(np.float64)
        expected = np.array([((rows - row) ** 2).sum(axis=1) for row in rows])
        np.testing.assert_allclose(ours(), expected, rtol=1e-9)
        np.testing.assert_allclose(peer().numpy(), expected, rtol=1e-2)

    return Case(
        f"distances of {count}", {"n": n, "m": count}, 4 * n * count, ours, {"torch eager": peer}, check
    )


def clip(n: int, m: int) -> Case:
    """Clipped gossip of m neighbours: distances, then clipped differences, in two passes."""
    *x, own = vectors(m + 1, n)
    out, theirs, work = np.zeros(n, np.float32), torch.zeros(n), torch.zeros(n)
    tensors, centre = _tensors(x), torch.from_numpy(own)
    radius, weights = 0.5 * n**0.5, [1 / (m + 1)] * m

    def ours() -> None:
        lengths = np.sqrt(kernels.sqdists(x, own)).tolist()
        out[:] = own
        kernels.clip_accumulate(x, weights, lengths, [radius] * m, own, out)

    def peer() -> None:
        theirs.copy_(centre)
        for tensor, weight in zip(tensors, weights, strict=True):
            torch.sub(tensor, centre, out=work)
            length = torch.linalg.vector_norm(work).item()
            theirs.add_(work, alpha=weight * min(1.0, radius / length))

    def check() -> None:
        ours()
        peer()
        expected = own.astype(np.float64)
        for v, weight in zip(x, weights, strict=True):
            difference = v.astype(np.float64) - own
            expected += weight * min(1.0, radius / np.linalg.norm(difference)) * difference
        np.testing.assert_allclose(out, expected, atol=1e-5)
        np.testing.assert_allclose(theirs.numpy(), expected, atol=2e-2)  # float32 norms: 1e-2 off at 64 Mi

    return Case(
        f"clipped gossip of {m}", {"n": n, "m": m}, 4 * n * (2 * m + 4), ours, {"torch eager": peer}, check
    )


def choco_step(n: int) -> Case:
    """CHOCO's whole local step with int8 codes; gamma is small, so that repeated steps stay bounded."""
    x, estimate, mixed, gradient = vectors(4, n)
    state = [x, estimate, mixed]
    mine, theirs = [v.copy() for v in state], _tensors([v.copy() for v in state])
    codes, scales = np.zeros(n, np.uint8), np.zeros(n // BLOCK, np.float32)
    step = kernels.ChocoStep(gamma=1e-4, own_weight=1e-4, lr=1e-4)
    g = torch.from_numpy(gradient)
    work, their_codes = torch.zeros(n // BLOCK, BLOCK), torch.zeros(n // BLOCK, BLOCK, dtype=torch.int8)
    rows, their_scales = torch.zeros_like(work), torch.zeros(n // BLOCK, 1)

    def ours() -> None:
        step.run(mine[0], mine[1], mine[2], codes, scales, gradient)

    def peer() -> None:
        a, hat, s = theirs
        a.add_(s, alpha=step.gamma).add_(hat, alpha=-step.gamma).add_(g, alpha=-step.lr)
        torch.sub(a, hat, out=rows.view(-1))
        torch.abs(rows, out=work)
        torch.amax(work, dim=1, keepdim=True, out=their_scales)
        their_scales.div_(127.0)
        torch.div(rows, their_scales, out=work)
        their_codes.copy_(work.round_())
        work.copy_(their_codes)
        work.mul_(their_scales)
        s.add_(work.view(-1), alpha=step.own_weight)
        hat.add_(work.view(-1))

    def check() -> None:
        for k, start in enumerate(state):
            mine[k][:] = start
            theirs[k].copy_(torch.from_numpy(start))
        ours()
        peer()
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=0.1)  # one code apart where quotients round apart
            assert np.mean(np.abs(a - b.numpy()) > 1e-5) < 1e-3

    params = {"n": n, "block": BLOCK}
    return Case("choco step int8 + SGD", params, 29 * n + 4 * scales.size, ours, {"torch eager": peer}, check)


def push_sum(n: int, m: int) -> Case:
    """Mix of m push-sum numerators and the de-biased model."""
    x, weights = vectors(m, n), [1 / m] * m
    out, ratio = np.zeros(n, np.float32), np.zeros(n, np.float32)
    theirs, their_ratio, tensors = torch.zeros(n), torch.zeros(n), _tensors(x)

    def ours() -> None:
        kernels.push_sum_mix(x, weights, 0.8, out, ratio)

    def peer() -> None:
        torch.mul(tensors[0], weights[0], out=theirs)
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            theirs.add_(tensor, alpha=weight)
        torch.div(theirs, 0.8, out=their_ratio)

    def check() -> None:
        ours()
        peer()
        np.testing.assert_allclose(ratio, their_ratio.numpy(), atol=1e-6)

    return Case(f"push-sum mix of {m}", {"n": n, "m": m}, 4 * n * (m + 2), ours, {"torch eager": peer}, check)


def momentum(n: int, m: int) -> Case:
    """Momentum SGD on a mix of m models."""
    *x, gradient, start = vectors(m + 2, n)
    weights, out, theirs = [1 / m] * m, np.zeros(n, np.float32), torch.zeros(n)
    velocity, their_velocity, tensors = start.copy(), torch.from_numpy(start.copy()), _tensors(x)
    g = torch.from_numpy(gradient)

    def ours() -> None:
        kernels.momentum_mix(x, weights, gradient, velocity, out, momentum=0.9, lr=0.01)

    def peer() -> None:
        their_velocity.mul_(0.9).add_(g)
        torch.mul(tensors[0], weights[0], out=theirs)
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            theirs.add_(tensor, alpha=weight)
        theirs.add_(their_velocity, alpha=-0.01)

    def check() -> None:
        velocity[:] = start
        their_velocity.copy_(torch.from_numpy(start))
        ours()
        peer()
        np.testing.assert_allclose(out, theirs.numpy(), atol=1e-5)

    return Case(
        f"momentum SGD + mix of {m}", {"n": n, "m": m}, 4 * n * (m + 4), ours, {"torch eager": peer}, check
    )
