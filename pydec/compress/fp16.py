"""float16: half the bytes, three decimal digits, a small range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydec.compress.base import compressors
from pydec.compress.half import HalfPrecision
from pydec.kernels.cast import Half


@compressors.register("fp16")
@dataclass(frozen=True)
class Fp16(HalfPrecision):
    """Round every element to IEEE binary16, 5 bits of exponent and 10 of mantissa, to nearest even.

    Entries of magnitude 6.1e-5 to 65504 are off by at most 1 in 2049, so delta = 1 - 1 / 2049^2 for vectors
    of such entries. Smaller ones are off by up to 3e-8 each and vanish below that: for differences and
    gradients of that size, use bf16 or a quantiser, whose scales follow them. Biased, a little. NaN and
    infinity are refused, and so are magnitudes from 65520 on.

    Payload: header (its parameter is 0), n codes of 2 bytes.
    """

    wire_id: ClassVar[int] = 5
    name: ClassVar[Half] = "fp16"
    largest: ClassVar[float] = 65504.0

    def delta(self, n: int) -> float:
        """1 - 1 / 2049^2, for vectors in its range."""
        return 1 - 1 / 2049**2
