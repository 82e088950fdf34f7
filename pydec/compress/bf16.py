"""bfloat16: half the bytes, the range of float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydec.compress.base import compressors
from pydec.compress.half import HalfPrecision
from pydec.kernels.cast import Half


@compressors.register("bf16")
@dataclass(frozen=True)
class Bf16(HalfPrecision):
    """Round every element to bfloat16, 8 bits of exponent and 7 of mantissa, to nearest even.

    Every element is off by at most 1 in 257, so delta = 1 - 1 / 257^2 (entries below 1e-38, where
    bfloat16 is denormal, can be worse). Biased, a little. NaN and infinity are refused, and so are
    magnitudes from 3.3962e38 on.

    Payload: header (its parameter is 0), n codes of 2 bytes.
    """

    wire_id: ClassVar[int] = 4
    name: ClassVar[Half] = "bf16"
    largest: ClassVar[float] = float.fromhex("0x1.fep127")

    def delta(self, n: int) -> float:
        """1 - 1 / 257^2."""
        return 1 - 1 / 257**2
