"""Blockwise 8-bit quantisation: a quarter of the bytes, nearly all of the values."""

from __future__ import annotations

from typing import ClassVar

from pydec.compress.base import compressors
from pydec.compress.quantiser import IntQuantiser


@compressors.register("int8")
class Int8(IntQuantiser):
    """One signed byte per element and one float32 scale per block: code = rint(x / scale), -127..127.

    To nearest, delta = 254^2 / (254^2 + m), m = min(block, n) - 1: 0.996 for blocks of 256. At random,
    unbiased with variance 0.002 for blocks of 256. ``IntQuantiser`` has the rules.

    Payload: header (its parameter is the block), ceil(n / block) float32 scales, n int8 codes.

    Source of stochastic rounding: Alistarh, Grubic, Li, Tomioka, Vojnovic, "QSGD: Communication-Efficient
    SGD via Gradient Quantization and Encoding", NeurIPS 2017, arXiv:1610.02132, section 3.1 (there scaled
    by the norm, here by the largest magnitude).

    Args:
        block: elements that share a scale, a multiple of 16 in 16..65536.
        rounding: nearest or stochastic.
        draw_key: 64 bits from which stochastic rounding draws; ``keyed`` replaces it.
    """

    wire_id: ClassVar[int] = 3
    name: ClassVar[str] = "int8"
