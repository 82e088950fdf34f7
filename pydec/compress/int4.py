"""Blockwise 4-bit quantisation: an eighth of the bytes."""

from __future__ import annotations

from typing import ClassVar

from pydec.compress.base import compressors
from pydec.compress.quantiser import IntQuantiser


@compressors.register("int4")
class Int4(IntQuantiser):
    """Four bits per element and one float32 scale per block: code = rint(x / scale), -7..7.

    To nearest, delta = 14^2 / (14^2 + m), m = min(block, n) - 1: 0.43 for blocks of 256. At random,
    unbiased with variance 0.74 for blocks of 256. ``IntQuantiser`` has the rules.

    Payload: header (its parameter is the block), ceil(n / block) float32 scales, codes in groups of 16
    bytes: byte j holds element j of its 32 in the low nibble, element j + 16 in the high one.

    Source of stochastic rounding: as ``Int8``.

    Args:
        block: elements that share a scale, a multiple of 32 in 32..65536.
        rounding: nearest or stochastic.
        draw_key: 64 bits from which stochastic rounding draws; ``keyed`` replaces it.
    """

    wire_id: ClassVar[int] = 7
    name: ClassVar[str] = "int4"
