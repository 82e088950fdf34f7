"""Error feedback and int8 as one would write it in Triton: one program for some blocks, all in registers."""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]

BLOCK = 256
ROWS = 8  # blocks of a program


@triton.jit  # type: ignore[untyped-decorator,unused-ignore]
def _kernel(x: Any, residual: Any, codes: Any, scales: Any, block: tl.constexpr, rows: tl.constexpr) -> None:
    row = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    at = row[:, None] * block + tl.arange(0, block)[None, :]
    a = tl.load(x + at) + tl.load(residual + at)
    scale = tl.max(tl.abs(a), axis=1) / 127.0
    inverse = tl.where(scale > 0.0, 1.0 / scale, 0.0)
    level = (a * inverse[:, None] + 12582912.0) - 12582912.0
    tl.store(codes + at, level.to(tl.int8))
    tl.store(scales + row, scale)
    tl.store(residual + at, a - scale[:, None] * level)


def feedback_int8(x: torch.Tensor, residual: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> None:
    """As ``cuda.quant_encode`` with a residual; the length is a multiple of ``BLOCK * ROWS``."""
    grid = (x.numel() // (BLOCK * ROWS),)
    _kernel[grid](x, residual, codes.view(torch.int8), scales, BLOCK, ROWS)
