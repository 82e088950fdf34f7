"""Blockwise 2-bit quantisation: each element is -1, 0 or 1 times its block's scale."""

from __future__ import annotations

from typing import ClassVar

from pydec.compress.base import compressors
from pydec.compress.quantiser import IntQuantiser


@compressors.register("int2")
class Int2(IntQuantiser):
    """Two bits per element and one float32 scale per block, its largest magnitude: code -1, 0 or 1.

    To nearest, delta = 4 / (4 + m), m = min(block, n) - 1: 0.015 for blocks of 256, and always sent is what
    is above half the largest. At random, unbiased with variance (sqrt(1 + m) - 1) / 2 = 7.5 for blocks of
    256: no contraction. ``IntQuantiser`` has the rules.

    Payload: header (its parameter is the block), ceil(n / block) float32 scales, codes in groups of 16
    bytes: byte j holds elements j, j + 16, j + 32 and j + 48 of its 64, from the low bits up.

    Source of stochastic rounding to three levels: Wen, Xu, Yan, Wu, Wang, Chen, Li, "TernGrad: Ternary
    Gradients to Reduce Communication in Distributed Deep Learning", NeurIPS 2017, arXiv:1705.07878,
    section 3.1 (there scaled by the whole vector, here by blocks; without clipping).

    Args:
        block: elements that share a scale, a multiple of 64 in 64..65536.
        rounding: nearest or stochastic.
        draw_key: 64 bits from which stochastic rounding draws; ``keyed`` replaces it.
    """

    wire_id: ClassVar[int] = 8
    name: ClassVar[str] = "int2"
