"""The quantisers beside the same arithmetic in eager torch: error feedback, rounding at random, decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pydec import compress, kernels
from pydec.kernels.quant import TOP_LEVEL, Codec

from .cases import BLOCK, Case, vectors

FLOAT8 = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
SHIFTS = torch.arange(8, dtype=torch.uint8)


class CannotCompile(Exception):
    """Why torch.compile is no peer here, in a few words."""


def _compiled_feedback(
    rows: torch.Tensor, residual: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor
) -> Callable[[], object]:
    """Error feedback and int8 in one compiled function, which has run once when this returns."""
    if rows.numel() < 1 << 20:
        raise CannotCompile("not compiled for quick runs")

    def step(x: torch.Tensor, e: torch.Tensor, q: torch.Tensor, s: torch.Tensor) -> None:
        a = x + e
        scale = a.abs().amax(dim=1, keepdim=True) / 127.0
        level = (a / scale).round()
        q.copy_(level)
        s.copy_(scale)
        e.copy_(a - level * scale)

    compiled = torch.compile(step, dynamic=False)
    before = residual.clone()
    try:
        compiled(rows, residual, codes, scales)
    except Exception as error:  # whatever the compiler, or what it calls, raises
        raise CannotCompile(f"{type(error).__name__} while compiling") from error
    check = (before + rows) - codes.float() * scales
    torch.testing.assert_close(residual, check, atol=1e-6, rtol=0)
    residual.copy_(before)
    return lambda: compiled(rows, residual, codes, scales)


def _one_bit(x: torch.Tensor, residual: torch.Tensor) -> Callable[[], object]:
    """Error feedback and signs as 1-bit Adam has them: one scale, the root mean square, for the whole vector.

    Source of the rule: Tang et al., "1-bit Adam", ICML 2021, arXiv:2102.02888, algorithm 1, as DeepSpeed
    runs it on a CPU: torch operations, and packbits for the wire.
    """
    root = x.numel() ** 0.5
    levels = torch.zeros_like(x)

    def run() -> object:
        residual.add_(x)
        scale = residual.norm() / root
        positive = residual >= 0
        torch.mul(positive, 2.0, out=levels)
        levels.sub_(1.0).mul_(scale)
        residual.sub_(levels)
        return np.packbits(positive.numpy())

    return run


def encode(n: int, codec: Codec, feedback: bool = True, stochastic: bool = False) -> Case:
    """Scale, round and pack n elements, a multiple of the block; with feedback also add and subtract.

    Eager torch does not pack its codes (but for sign, by multiplication and sum): an advantage for it.
    """
    x, start = vectors(2, n)
    start *= 0.01
    codes, scales = np.zeros(kernels.quant_bytes(codec, n), np.uint8), np.zeros(n // BLOCK, np.float32)
    residual, theirs = start.copy(), torch.from_numpy(start.copy()).view(-1, BLOCK)
    rows, work = torch.from_numpy(x).view(-1, BLOCK), torch.zeros(n // BLOCK, BLOCK)
    draws = torch.zeros_like(work)
    their_codes = torch.zeros(work.shape, dtype=FLOAT8.get(codec, torch.int8))
    their_scales, top = torch.zeros(n // BLOCK, 1), float(TOP_LEVEL[codec])

    def ours() -> None:
        kernels.quant_encode(
            x, codes, scales, codec, BLOCK,
            residual=residual if feedback else None, key=1 if stochastic else None,
        )  # fmt: skip

    def peer() -> None:
        a = rows
        if feedback:
            a = theirs.add_(rows)
        torch.abs(a, out=work)
        if codec == "sign":
            torch.mean(work, dim=1, keepdim=True, out=their_scales)
            torch.sign(a, out=work)
        else:
            torch.amax(work, dim=1, keepdim=True, out=their_scales)
            their_scales.div_(top)
            torch.div(a, their_scales, out=work)
            if stochastic:
                work.add_(draws.uniform_()).floor_()
            elif codec not in FLOAT8:
                work.round_()
        if codec == "sign":
            torch.sum((work.view(-1, 8) < 0).to(torch.uint8) << SHIFTS, dim=1, dtype=torch.uint8)
        else:
            their_codes.copy_(work)
            work.copy_(their_codes)
        if feedback:
            theirs.sub_(work.mul_(their_scales))

    def check() -> None:
        residual[:] = start
        theirs.copy_(torch.from_numpy(start).view(-1, BLOCK))
        ours()
        peer()
        a = x + start if feedback else x
        decoded = kernels.quant_decode(codes, scales, np.zeros(n, np.float32), codec, BLOCK)
        np.testing.assert_allclose(scales, their_scales.numpy()[:, 0], rtol=1e-5)
        if feedback:
            np.testing.assert_array_equal(residual, a - decoded)
        if not stochastic:
            expected = np.mean((a - (a - theirs.numpy().reshape(-1) if feedback else decoded)) ** 2)
            np.testing.assert_allclose(np.mean((a - decoded) ** 2), expected, rtol=1e-3)

    peers: dict[str, Callable[[], object]] = {"torch eager": peer}
    left_out = {}
    if feedback and codec == "int8":
        try:
            peers["torch.compile"] = _compiled_feedback(rows, theirs, their_codes, their_scales)
        except CannotCompile as error:
            left_out["torch.compile"] = str(error)
    if feedback and codec == "sign":
        peers["1-bit Adam's rule in torch"] = _one_bit(rows.view(-1), theirs.view(-1))

    name = f"{'EF + ' if feedback else ''}{codec}{' stochastic' if stochastic else ''} encode"
    moved = (12 if feedback else 4) * n + codes.nbytes + scales.nbytes
    return Case(name, {"n": n, "block": BLOCK}, moved, ours, peers, check, left_out)


def accumulate(n: int, codec: Codec, m: int) -> Case:
    """Decode m messages and add them, weighted, to a vector; torch has its codes unpacked."""
    codes, scales, levels = [], [], []
    for v in vectors(m, n):
        codes.append(np.zeros(kernels.quant_bytes(codec, n), np.uint8))
        scales.append(np.zeros(n // BLOCK, np.float32))
        kernels.quant_encode(v, codes[-1], scales[-1], codec, BLOCK)
        ones = np.ones(n // BLOCK, np.float32)
        level = torch.from_numpy(kernels.quant_decode(codes[-1], ones, np.zeros(n, np.float32), codec, BLOCK))
        levels.append(level.to(FLOAT8.get(codec, torch.int8)).view(-1, BLOCK))
    weights = [0.25 / m] * m
    out, theirs, work = np.zeros(n, np.float32), torch.zeros(n), torch.zeros(n // BLOCK, BLOCK)
    their_scales = [torch.from_numpy(s).view(-1, 1) for s in scales]

    def ours() -> None:
        kernels.quant_accumulate(codes, scales, weights, out, codec, BLOCK)

    def peer() -> None:
        for level, scale, weight in zip(levels, their_scales, weights, strict=True):
            work.copy_(level)
            work.mul_(scale)
            theirs.add_(work.view(-1), alpha=weight)

    def check() -> None:
        out[:] = 0
        theirs.zero_()
        ours()
        peer()
        np.testing.assert_allclose(out, theirs.numpy(), atol=1e-5)

    moved = 8 * n + m * (codes[0].nbytes + scales[0].nbytes)
    return Case(
        f"{codec} decode + accumulate",
        {"n": n, "m": m, "block": BLOCK},
        moved,
        ours,
        {"torch eager": peer},
        check,
    )


def decode(n: int, codec: Codec) -> Case:
    """Decode one message to a vector; torch has its codes unpacked."""
    x = vectors(1, n)[0]
    codes, scales = np.zeros(kernels.quant_bytes(codec, n), np.uint8), np.zeros(n // BLOCK, np.float32)
    kernels.quant_encode(x, codes, scales, codec, BLOCK)
    out, theirs = np.zeros(n, np.float32), torch.zeros(n // BLOCK, BLOCK)
    level = torch.from_numpy(kernels.quant_decode(codes, np.ones_like(scales), out.copy(), codec, BLOCK))
    levels = level.to(FLOAT8.get(codec, torch.int8)).view(-1, BLOCK)
    their_scales = torch.from_numpy(scales).view(-1, 1)

    def ours() -> None:
        kernels.quant_decode(codes, scales, out, codec, BLOCK)

    def peer() -> None:
        theirs.copy_(levels)
        theirs.mul_(their_scales)

    def check() -> None:
        ours()
        peer()
        np.testing.assert_array_equal(out, theirs.numpy().reshape(-1))

    moved = 4 * n + codes.nbytes + scales.nbytes
    return Case(f"{codec} decode", {"n": n, "block": BLOCK}, moved, ours, {"torch eager": peer}, check)


def message_accumulate(n: int, m: int) -> Case:
    """The same through Int8.accumulate, which checks the payloads first."""
    compressor = compress.make("int8")
    payloads = [np.frombuffer(compressor.encode(v), np.uint8) for v in vectors(m, n)]
    weights, out = [0.25 / m] * m, np.zeros(n, np.float32)

    def ours() -> None:
        compressor.accumulate(payloads, weights, out)

    def check() -> None:
        out[:] = 0
        ours()
        expected = sum(
            w * compressor.decode(p, np.zeros(n, np.float32)) for p, w in zip(payloads, weights, strict=True)
        )
        np.testing.assert_allclose(out, expected, atol=1e-6)

    return replace(accumulate(n, "int8", m), name="Int8.accumulate of payloads", ours=ours, check=check)


MAKERS: list[Callable[[int], Case]] = [
    *(partial(encode, codec=codec) for codec in ("int8", "int4", "int2", "sign", "e4m3")),
    *(partial(encode, codec=codec, feedback=False) for codec in ("int8", "int4", "e4m3")),
    *(partial(encode, codec=codec, feedback=False, stochastic=True) for codec in ("int8", "int4")),
    *(partial(decode, codec=codec) for codec in ("int8", "int4", "e4m3", "e5m2")),
    *(partial(accumulate, codec=codec, m=2) for codec in ("int8", "int4", "sign", "e4m3")),
    partial(message_accumulate, m=2),
]
"""Each takes n."""
