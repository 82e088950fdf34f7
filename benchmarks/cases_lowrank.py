"""Low-rank and transform compressors, with error feedback, beside their published formulations in torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from pydec import compress, kernels
from pydec.compress.powersgd import PowerSGD

from .cases import Case, vectors


class _PowerPeer:
    """What the two formulations of PowerSGD share: a square matrix, its residual and its factors."""

    def __init__(self, x: np.ndarray, start: np.ndarray, rank: int) -> None:
        side = math.isqrt(x.size)
        self.x = torch.from_numpy(x).view(side, side)
        self.start = torch.from_numpy(start.copy()).view(side, side)
        self.residual = self.start.clone()
        self.a = torch.zeros_like(self.x)
        self.p, self.q = torch.zeros(side, rank), torch.zeros(side, rank)
        self.approximation = torch.zeros_like(self.x)
        self.draws = torch.randn(side, rank, generator=torch.Generator().manual_seed(0))

    def products(self) -> None:
        """Two products with a QR decomposition between them; the residual is updated in place."""
        self.residual.add_(self.x)
        torch.mm(self.residual, self.draws, out=self.p)
        self.p.copy_(torch.linalg.qr(self.p).Q)
        torch.mm(self.residual.t(), self.p, out=self.q)
        self.residual.addmm_(self.p, self.q.t(), alpha=-1)

    def separate_steps(self) -> None:
        """As epfml describes it: every step by itself, P orthogonalised column by column."""
        torch.add(self.x, self.residual, out=self.a)
        torch.matmul(self.a, self.draws, out=self.p)
        for j in range(self.p.shape[1]):
            column = self.p[:, j : j + 1]
            column /= torch.sqrt(torch.sum(column**2)) + 1e-8
            if j + 1 < self.p.shape[1]:
                rest = self.p[:, j + 1 :]
                rest -= torch.sum(column * rest, dim=0) * column
        torch.matmul(self.a.t(), self.p, out=self.q)
        torch.matmul(self.p, self.q.t(), out=self.approximation)
        torch.sub(self.a, self.approximation, out=self.residual)

    def check(self, run: Callable[[], None]) -> None:
        self.residual.copy_(self.start)
        run()
        a = (self.x + self.start).double()
        p = self.p.double()
        torch.testing.assert_close(p.t() @ p, torch.eye(p.shape[1], dtype=torch.float64), atol=1e-4, rtol=0)
        torch.testing.assert_close(self.q.double(), a.t() @ p, atol=1e-3, rtol=0)
        torch.testing.assert_close(self.residual.double(), a - p @ self.q.double().t(), atol=1e-4, rtol=0)


def powersgd(n: int, rank: int) -> Case:
    """Error feedback, one step of subspace iteration, payload and residual; n is the square of an integer.

    The least traffic is 16 bytes an element: if the residual waited for the next step, one pass would read x
    and it and write it, and one would read it again. Ours is up to date after every call: 20.
    """
    x, start = vectors(2, n)
    compressor, residual = PowerSGD(rank=rank), start.copy()
    payload = np.zeros(compressor.max_bytes(n), np.uint8)
    pair, separate = _PowerPeer(x, start, rank), _PowerPeer(x, start, rank)

    def ours() -> None:
        compressor.encode_feedback_into(x, residual, payload)

    def check() -> None:
        residual[:] = start
        ours()
        a, y = x + start, compressor.decode(payload, np.empty_like(x))
        np.testing.assert_array_equal(residual, a - y)
        kept = float(a.astype(np.float64) @ y)  # of a projection, the inner product is the squared length
        np.testing.assert_allclose(kept, float(y.astype(np.float64) @ y), rtol=1e-3)
        assert kept > 0
        pair.check(pair.products)
        separate.check(separate.separate_steps)

    peers = {"torch, two products": pair.products, "epfml's steps in torch": separate.separate_steps}
    params = {"n": n, "rank": rank}
    return Case("PowerSGD with feedback", params, 16 * n + 2 * payload.size, ours, peers, check)


def powersgd_accumulate(n: int, rank: int, m: int) -> Case:
    """Decode m messages and add them, weighted, to a vector, beside one product each in torch."""
    compressor = PowerSGD(rank=rank)
    payloads = [compressor.keyed(k).encode(v) for k, v in enumerate(vectors(m, n))]
    weights = [0.25 / m] * m
    out, side = np.zeros(n, np.float32), math.isqrt(n)
    theirs = torch.zeros(side, side)
    pairs = [(torch.ones(side, rank), torch.ones(rank, side)) for _ in range(m)]

    def ours() -> None:
        compressor.accumulate(payloads, weights, out)

    def peer() -> None:
        for (left, right), weight in zip(pairs, weights, strict=True):
            theirs.addmm_(left, right, alpha=weight)

    def check() -> None:
        out[:] = 0
        theirs.zero_()
        ours()
        peer()
        dense = [compress.from_wire(p).decode(p, np.empty(n, np.float32)) for p in payloads]
        expected = sum(np.float64(weight) * d for d, weight in zip(dense, weights, strict=True))
        np.testing.assert_allclose(out, expected, atol=1e-6)
        torch.testing.assert_close(theirs, torch.full_like(theirs, 0.25 * rank))

    params = {"n": n, "rank": rank, "m": m}
    return Case("PowerSGD decode + accumulate", params, 8 * n, ours, {"torch eager": peer}, check)


SIDE, COEFFICIENTS = 64, 32


def _cosines(side: int) -> torch.Tensor:
    i = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos((2 * i + 1) * i[:, None] * math.pi / (2 * side)) * math.sqrt(2 / side)
    matrix[0] /= math.sqrt(2)
    return matrix.float()


def demo(n: int, beta: float | None) -> Case:
    """The largest coefficients of every tile, alone or taken out of a momentum; n is a multiple of the tile.

    The peer is DeMo's own formulation: transforms as products with a matrix, then top-k, gather and scatter.
    """
    x, start = vectors(2, n)
    records = np.zeros(kernels.demo_bytes(n, SIDE, COEFFICIENTS, "float32"), np.uint8)
    residual = None if beta is None else start.copy()
    momentum = torch.from_numpy(start.copy()).view(-1, SIDE, SIDE)
    tensor, matrix = torch.from_numpy(x).view(-1, SIDE, SIDE), _cosines(SIDE)
    spectrum = torch.zeros(n // SIDE**2, SIDE**2)

    def ours() -> None:
        kernels.demo_encode(x, residual, records, SIDE, COEFFICIENTS, beta=1.0 if beta is None else beta)

    def peer() -> torch.Tensor:
        if beta is None:
            a = tensor
        else:
            a = momentum.mul_(beta).add_(tensor)
        coefficients = torch.einsum("ui,tij,vj->tvu", matrix, a, matrix).reshape(spectrum.shape)
        chosen = torch.topk(coefficients.abs(), COEFFICIENTS, dim=1, sorted=False).indices
        sent = torch.gather(coefficients, 1, chosen)
        if beta is not None:
            spectrum.zero_()
            spectrum.scatter_(1, chosen, sent)
            momentum.sub_(torch.einsum("ui,tvu,vj->tij", matrix, spectrum.view(-1, SIDE, SIDE), matrix))
        return sent

    def check() -> None:
        if residual is not None:
            residual[:] = start
            momentum.copy_(torch.from_numpy(start).view_as(momentum))
        ours()
        values = records.reshape(n // SIDE**2, -1)[:, : 4 * COEFFICIENTS].copy().view(np.float32)
        theirs = np.sort(np.abs(peer().numpy()), axis=1)
        np.testing.assert_allclose(np.sort(np.abs(values), axis=1), theirs, atol=1e-4)
        if residual is not None:
            difference = residual - momentum.numpy().reshape(-1)
            assert (
                np.mean(np.abs(difference) > 1e-4) < 1e-3
            )  # where another of two nearly equal ones was sent
            sent = kernels.demo_decode(records, np.empty(n, np.float32), SIDE, COEFFICIENTS, "float32")
            np.testing.assert_allclose(residual + sent, x + np.float32(beta or 0.0) * start, atol=1e-5)

    name = "DeMo encode" if beta is None else "DeMo encode with momentum"
    params = {"n": n, "side": SIDE, "k": COEFFICIENTS}
    n_bytes = (4 if beta is None else 12) * n + records.size
    return Case(name, params, n_bytes, ours, {"DeMo's steps in torch": peer}, check)


MAKERS: list[Callable[[int], Case]] = [
    lambda n: powersgd(n, 4),
    lambda n: powersgd(n, 1),
    lambda n: powersgd_accumulate(n, 4, 2),
    lambda n: demo(n, None),
    lambda n: demo(n, 0.999),
]
