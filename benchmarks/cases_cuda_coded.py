"""The compressors on a GPU that do more than arithmetic on single elements, beside torch's formulations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from pydec import kernels
from pydec.kernels import cuda

from .cases_cuda import BLOCK, CHECKED, Action, Device, GpuCase, Set, compiled, head
from .cases_lowrank import _cosines

SIDE, COEFFICIENTS = 64, 32


def powersgd(device: Device, rank: int = 4) -> GpuCase:
    """Error feedback and one step of PowerSGD on a square matrix: 8 bytes read and 4 written, twice read."""

    def make(n: int, seed: int) -> Set:
        columns = 16 * (math.isqrt(n) // 16)
        return {
            "x": device.normal(n, seed),
            "residual": device.normal(n, seed + 1000),
            "columns": columns,
            "left": device.zeros(rank * -(-n // columns)),
            "right": device.normal(rank * columns, seed + 2000),
            "bad": device.zeros(1, torch.int64),
        }

    def ours(s: Set) -> None:
        cuda.powersgd_iterate(s["x"], s["residual"], s["columns"], s["left"], s["right"], s["bad"])
        cuda.powersgd_accumulate([s["left"]], [s["right"]], [-1.0], s["columns"], s["residual"])

    def eager(s: Set) -> None:
        columns = s["columns"]
        rows = len(s["x"]) // columns
        a = s["residual"][: rows * columns].add_(s["x"][: rows * columns]).view(rows, columns)
        p = torch.linalg.qr(a @ s["right"].view(rank, columns).t()).Q
        q = a.t() @ p
        a.addmm_(p, q.t(), alpha=-1)

    def check(s: Set) -> None:
        n, columns = min(len(s["x"]), CHECKED), s["columns"]
        part = {name: s[name][:n].clone() for name in ("x", "residual")}
        x, residual = head(s["x"], n), head(s["residual"], n)
        left, right = np.zeros(rank * -(-n // columns), np.float32), head(s["right"])
        kernels.powersgd_iterate(x, residual, columns, left, right)
        kernels.powersgd_accumulate([left], [right], [-1.0], columns, residual)
        ours({**s, **part, "left": device.zeros(left.size)})
        np.testing.assert_array_equal(head(s["right"]), right)

    return GpuCase(f"PowerSGD rank {rank} with feedback", 24, make, ours, {"torch eager": eager}, check)


def demo(device: Device) -> GpuCase:
    """DeMo's momentum, 32 of 4096 coefficients taken out: reads 8 bytes an element, writes 4."""
    bytes_each = kernels.demo_bytes(SIDE**2, SIDE, COEFFICIENTS, "float32")

    def make(n: int, seed: int) -> Set:
        return {
            "x": device.normal(n, seed),
            "residual": device.normal(n, seed + 1000),
            "records": device.zeros(n // SIDE**2 * bytes_each, torch.uint8),
            "bad": device.zeros(2, torch.int64),
            "matrix": device.zeros(SIDE**2).copy_(_cosines(SIDE).view(-1)).view(SIDE, SIDE),
        }

    def ours(s: Set) -> None:
        rest = (SIDE, COEFFICIENTS, "float32", 0.999)
        cuda.demo_encode(s["x"], s["residual"], s["records"], *rest, bad=s["bad"])

    def body(x: torch.Tensor, residual: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        momentum = residual.mul_(0.999).add_(x).view(-1, SIDE, SIDE)
        spectrum = torch.einsum("ui,tij,vj->tvu", matrix, momentum, matrix).reshape(-1, SIDE**2)
        places = torch.topk(spectrum.abs(), COEFFICIENTS, dim=1, sorted=False).indices
        sent = torch.gather(spectrum, 1, places)
        kept = torch.zeros_like(spectrum).scatter_(1, places, sent).view(-1, SIDE, SIDE)
        momentum.sub_(torch.einsum("ui,tvu,vj->tij", matrix, kept, matrix))
        return sent

    fused = compiled(body)

    def on(function: Callable[..., object]) -> Action:
        return lambda s: function(s["x"], s["residual"], s["matrix"])

    def check(s: Set) -> None:
        x, residual = head(s["x"]), head(s["residual"])
        records = np.zeros(x.size // SIDE**2 * bytes_each, np.uint8)
        kernels.demo_encode(x, residual, records, SIDE, COEFFICIENTS, beta=0.999)
        ours(s)
        np.testing.assert_array_equal(head(s["records"], records.size), records)
        np.testing.assert_array_equal(head(s["residual"]), residual)

    n_bytes = 12 + bytes_each / SIDE**2
    peers = {"torch eager": on(body), "torch.compile": on(fused)}
    return GpuCase("DeMo encode with momentum", n_bytes, make, ours, peers, check)


def topk_int8(device: Device, fraction: float = 0.01) -> GpuCase:
    """Exact top-k with error feedback, 8-bit values and packed gaps: reads 8 bytes an element, writes 4."""

    def make(n: int, seed: int) -> Set:
        k = max(1, int(n * fraction))
        return {
            "x": device.normal(n, seed),
            "residual": device.normal(n, seed + 1000),
            "k": k,
            "body": device.zeros(kernels.topk_int8_bound(n, k, BLOCK), torch.uint8),
            "work": device.zeros(cuda.native().topk_int8_work(n, k), torch.uint8),
        }

    def ours(s: Set) -> object:
        return cuda.topk_int8_encode(s["x"], s["residual"], s["k"], BLOCK, s["body"], s["work"])

    def eager(s: Set) -> None:
        a = s["residual"].add_(s["x"])
        places = a.abs().topk(s["k"], sorted=False).indices.sort().values
        rows = torch.nn.functional.pad(a[places], (0, -s["k"] % BLOCK)).view(-1, BLOCK)
        scales = rows.abs().amax(1, keepdim=True) / 127
        codes = (rows / scales).round().to(torch.int8)
        a[places] -= (codes * scales).view(-1)[: s["k"]]

    def check(s: Set) -> None:
        n, k = min(len(s["x"]), CHECKED), max(1, int(min(len(s["x"]), CHECKED) * fraction))
        x, residual = head(s["x"], n), head(s["residual"], n)
        body = np.zeros(kernels.topk_int8_bound(n, k, BLOCK), np.uint8)
        length, *_ = kernels.topk_int8_encode(x, residual, k, BLOCK, body)
        room = device.zeros(body.size, torch.uint8)
        rest = s["residual"][:n].clone()
        results = cuda.topk_int8_encode(s["x"][:n], rest, k, BLOCK, room)
        assert int(results[0]) == length
        np.testing.assert_array_equal(head(room, length), body[:length])
        np.testing.assert_array_equal(head(rest), residual)

    n_bytes = 12 + 2.3 * fraction
    return GpuCase(
        f"top-k int8 {fraction:g} with feedback", n_bytes, make, ours, {"torch eager": eager}, check
    )


MAKERS: list[Callable[[Device], GpuCase]] = [powersgd, demo, topk_int8]
