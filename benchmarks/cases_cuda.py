"""Kernels on a GPU beside what users run there today. Every case has several sets of buffers, used in turn.

A set is larger than the cache, so that with three of them no call finds its input there.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pydec import kernels
from pydec.kernels import cuda

BLOCK = 256
CHECKED = 1 << 20  # elements that are compared with the CPU kernels

Set = dict[str, Any]
Action = Callable[[Set], object]
Tensors = list[torch.Tensor]


@dataclass(frozen=True)
class GpuCase:
    """One kernel and its peers.

    Args:
        name: what is computed.
        bytes_per_element: read and written at the least, each byte once.
        make: a set of buffers of n elements; equal seeds give equal sets.
        ours: runs the kernel on a set.
        peers: the same in something else. They may leave results elsewhere.
        check: raises AssertionError unless our result on a fresh set is right.
        left_out: peers that cannot run here, and why.
    """

    name: str
    bytes_per_element: float
    make: Callable[[int, int], Set]
    ours: Action
    peers: Mapping[str, Action]
    check: Callable[[Set], None]
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Device:
    """Where the buffers are; tests replace it."""

    name: str = "cuda"

    def normal(self, n: int, seed: int) -> torch.Tensor:
        """n numbers of the normal distribution."""
        generator = torch.Generator(self.name).manual_seed(seed)
        return torch.randn(n, device=self.name, generator=generator)

    def zeros(self, n: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """n zeros."""
        return torch.zeros(n, dtype=dtype, device=self.name)


def head(tensor: torch.Tensor, n: int = CHECKED) -> np.ndarray:
    """A copy of the first elements on the CPU."""
    return tensor[:n].cpu().numpy().copy()


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile without a limit on what it may fuse."""
    return torch.compile(function, dynamic=False)  # type: ignore[no-any-return]


def missing(*names: str) -> dict[str, str]:
    """Which of these packages are not installed, as rows name them."""
    return {name: f"install {name}" for name in names if importlib.util.find_spec(name) is None}


def _quantise(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = a.view(-1, BLOCK)
    scales = rows.abs().amax(1) / 127
    codes = (rows / scales[:, None]).round().to(torch.int8)
    return codes, scales


def feedback_int8(device: Device) -> GpuCase:
    """Error feedback and int8: reads 8 bytes an element, writes 5 and a scale for every block."""

    def make(n: int, seed: int) -> Set:
        return {
            "x": device.normal(n, seed),
            "residual": device.normal(n, seed + 1000),
            "codes": device.zeros(n, torch.uint8),
            "scales": device.zeros(-(-n // BLOCK)),
            "bad": device.zeros(1, torch.int64),
        }

    def ours(s: Set) -> None:
        cuda.quant_encode(
            [s["x"]], [s["codes"]], [s["scales"]], "int8", BLOCK, residual=[s["residual"]], bad=s["bad"]
        )

    def body(x: torch.Tensor, residual: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> None:
        a = x + residual
        q, s = _quantise(a)
        codes.copy_(q.view(-1).view(torch.uint8))
        scales.copy_(s)
        residual.copy_((a.view(-1, BLOCK) - q * s[:, None]).view(-1))

    fused = compiled(body)
    peers: dict[str, Action] = {
        "torch eager": lambda s: body(s["x"], s["residual"], s["codes"], s["scales"]),
        "torch.compile": lambda s: fused(s["x"], s["residual"], s["codes"], s["scales"]),
    }
    left_out = missing("triton")
    if not left_out:
        from .triton_int8 import feedback_int8 as triton_int8

        peers["Triton"] = lambda s: triton_int8(s["x"], s["residual"], s["codes"], s["scales"])

    def check(s: Set) -> None:
        x, residual = head(s["x"]), head(s["residual"])
        codes, scales = np.empty(x.size, np.uint8), np.empty(-(-x.size // BLOCK), np.float32)
        kernels.quant_encode(x, codes, scales, "int8", BLOCK, residual=residual)
        ours(s)
        np.testing.assert_array_equal(head(s["codes"]), codes)
        np.testing.assert_array_equal(head(s["scales"], scales.size), scales)
        np.testing.assert_array_equal(head(s["residual"]), residual)
        assert int(s["bad"]) == 0

    return GpuCase("int8 with feedback", 13 + 4 / BLOCK, make, ours, peers, check, left_out)


def choco_step(device: Device) -> GpuCase:
    """The local step of CHOCO with int8: reads 12 bytes an element, writes 13."""
    factors = {"gamma": 0.5, "own_weight": 0.3}

    def make(n: int, seed: int) -> Set:
        vectors = {name: device.normal(n, seed + k) for k, name in enumerate(("x", "estimate", "mixed"))}
        return {
            **vectors,
            "codes": device.zeros(n, torch.uint8),
            "scales": device.zeros(-(-n // BLOCK)),
            "bad": device.zeros(1, torch.int64),
        }

    def ours(s: Set) -> None:
        state = ([s["x"]], [s["estimate"]], [s["mixed"]])
        cuda.choco_step(*state, [s["codes"]], [s["scales"]], **factors, bad=s["bad"])

    def body(
        x: torch.Tensor,
        estimate: torch.Tensor,
        mixed: torch.Tensor,
        codes: torch.Tensor,
        scales: torch.Tensor,
    ) -> None:
        x.add_(mixed - estimate, alpha=factors["gamma"])
        q, s = _quantise(x - estimate)
        sent = (q * s[:, None]).view(-1)
        codes.copy_(q.view(-1).view(torch.uint8))
        scales.copy_(s)
        mixed.add_(sent, alpha=factors["own_weight"])
        estimate.add_(sent)

    fused = compiled(body)

    def on(function: Callable[..., Any]) -> Action:
        return lambda s: function(s["x"], s["estimate"], s["mixed"], s["codes"], s["scales"])

    def check(s: Set) -> None:
        x, estimate, mixed = head(s["x"]), head(s["estimate"]), head(s["mixed"])
        codes, scales = np.empty(x.size, np.uint8), np.empty(-(-x.size // BLOCK), np.float32)
        kernels.ChocoStep(**factors).run(x, estimate, mixed, codes, scales)
        ours(s)
        for name, expected in (("x", x), ("estimate", estimate), ("mixed", mixed), ("codes", codes)):
            np.testing.assert_array_equal(head(s[name]), expected)

    peers = {"torch eager": on(body), "torch.compile": on(fused)}
    return GpuCase("CHOCO step int8", 25 + 4 / BLOCK, make, ours, peers, check)


def decode_mix(device: Device) -> GpuCase:
    """Two int8 messages added to a vector in one pass: reads 6 bytes an element, writes 4."""
    weights = [0.3, 0.2]

    def make(n: int, seed: int) -> Set:
        made: Set = {"out": device.normal(n, seed), "codes": [], "scales": []}
        for k in range(2):
            codes, scales = device.zeros(n, torch.uint8), device.zeros(-(-n // BLOCK))
            cuda.quant_encode([device.normal(n, seed + k + 1)], [codes], [scales], "int8", BLOCK)
            made["codes"].append(codes)
            made["scales"].append(scales)
        return made

    def ours(s: Set) -> None:
        cuda.quant_accumulate([s["codes"]], [s["scales"]], weights, [s["out"]], "int8", BLOCK)

    def body(out: torch.Tensor, codes: Tensors, scales: Tensors) -> None:
        for q, s, weight in zip(codes, scales, weights, strict=True):
            out.add_((q.view(torch.int8).view(-1, BLOCK) * s[:, None]).view(-1), alpha=weight)

    fused = compiled(body)
    peers: dict[str, Action] = {
        "torch eager": lambda s: body(s["out"], s["codes"], s["scales"]),
        "torch.compile": lambda s: fused(s["out"], s["codes"], s["scales"]),
    }
    left_out = missing("cupy")
    if not left_out:
        peers["CuPy"] = _cupy_decode(weights)

    def check(s: Set) -> None:
        out = head(s["out"])
        codes = [head(c) for c in s["codes"]]
        scales = [head(c, -(-out.size // BLOCK)) for c in s["scales"]]
        kernels.quant_accumulate(codes, scales, weights, out, "int8", BLOCK)
        ours(s)
        np.testing.assert_array_equal(head(s["out"]), out)

    return GpuCase("decode 2 int8 + mix", 10 + 8 / BLOCK, make, ours, peers, check, left_out)


def _cupy_decode(weights: list[float]) -> Action:
    import cupy  # type: ignore[import-not-found,import-untyped,unused-ignore]

    kernel = cupy.ElementwiseKernel(
        "raw int8 a, raw float32 s, raw int8 b, raw float32 t, float32 v, float32 w",
        "float32 out",
        f"out = out + v * (s[i / {BLOCK}] * a[i]) + w * (t[i / {BLOCK}] * b[i])",
        "decode_two",
    )

    def run(s: Set) -> None:
        a, b = (cupy.from_dlpack(codes.view(torch.int8)) for codes in s["codes"])
        first, second = (cupy.from_dlpack(scales) for scales in s["scales"])
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            kernel(a, first, b, second, *weights, cupy.from_dlpack(s["out"]))

    return run


def median(device: Device, m: int = 8) -> GpuCase:
    """Coordinate-wise median of m vectors: reads 4 m bytes an element, writes 4."""

    def make(n: int, seed: int) -> Set:
        return {"x": [device.normal(n, seed + k) for k in range(m)], "out": device.zeros(n)}

    def ours(s: Set) -> None:
        cuda.median(s["x"], s["out"])

    def body(x: Tensors, out: torch.Tensor) -> None:
        # In pieces: the copy that stack makes, sorted in 64-bit indices, would not fit beside the rest.
        for first in range(0, len(out), 1 << 24):
            part = torch.stack([v[first : first + (1 << 24)] for v in x])
            low, high = part.sort(dim=0).values[m // 2 - 1 : m // 2 + 1]
            out[first : first + (1 << 24)] = 0.5 * low + 0.5 * high

    def check(s: Set) -> None:
        ours(s)
        np.testing.assert_array_equal(head(s["out"]), kernels.median([head(v) for v in s["x"]]))

    peers: dict[str, Action] = {"torch sort": lambda s: body(s["x"], s["out"])}
    return GpuCase(f"median of {m}", 4 * (m + 1), make, ours, peers, check)


def topk(device: Device, fraction: float) -> GpuCase:
    """Exact selection of the largest entries: reads 4 bytes an element, writes 8 for each entry."""

    def make(n: int, seed: int) -> Set:
        k = max(1, int(n * fraction))
        return {
            "x": device.normal(n, seed),
            "k": k,
            "indices": device.zeros(k, torch.int32),
            "values": device.zeros(k),
            "bad": device.zeros(1, torch.int64),
            "work": device.zeros(cuda.native().topk_work(n, k), torch.uint8),
        }

    def ours(s: Set) -> None:
        cuda.topk_select(s["x"], s["k"], s["indices"], s["values"], bad=s["bad"], work=s["work"])

    fused = compiled(lambda x, k: x.abs().topk(k, sorted=False).indices)
    peers: dict[str, Action] = {
        "torch.topk": lambda s: s["x"].abs().topk(s["k"], sorted=False).indices,
        "torch.compile": lambda s: fused(s["x"], s["k"]),
    }
    left_out = missing("cupy")
    if not left_out:
        peers["CuPy argpartition"] = _cupy_topk

    def check(s: Set) -> None:
        ours(s)
        places = s["indices"].to(torch.int64)
        assert bool((places[1:] > places[:-1]).all())
        assert bool((s["x"][places] == s["values"]).all())
        chosen, best = s["values"].abs(), s["x"].abs().topk(s["k"], sorted=False).values
        assert float(chosen.min()) == float(best.min())
        assert float(chosen.double().sum()) == float(best.sort().values.double().sum()) or bool(
            (chosen.sort().values == best.sort().values).all()
        )

    return GpuCase(f"top-k {fraction:g}", 4 + 8 * fraction, make, ours, peers, check, left_out)


def _cupy_topk(s: Set) -> object:
    import cupy

    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        x = cupy.absolute(cupy.from_dlpack(s["x"]))
        return cupy.argpartition(x, len(x) - s["k"])[-s["k"] :]


MAKERS: list[Callable[[Device], GpuCase]] = [
    feedback_int8,
    choco_step,
    decode_mix,
    median,
    lambda device: topk(device, 0.01),
    lambda device: topk(device, 0.001),
]
