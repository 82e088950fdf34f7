"""Block-scaled 8-bit floats: a quarter of the bytes, with relative precision for small elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydec import kernels
from pydec.compress.base import Payload, compressors
from pydec.compress.quantiser import Quantiser, check_block
from pydec.compress.wire import as_bytes
from pydec.errors import ConfigError, FrameError
from pydec.kernels.quant import Codec

Format = Literal["e4m3", "e5m2"]
_FORMATS: dict[Format, tuple[int, float]] = {"e4m3": (3, 2.0**-10), "e5m2": (2, 2.0**-17)}
_FORMAT_AT = 24  # bit of the header's parameter from which the format's number stands


@compressors.register("fp8")
@dataclass(frozen=True)
class Fp8(Quantiser):
    """One 8-bit float per element and one float32 scale per block, max|x| / 448 or max|x| / 57344.

    e4m3 (4 bits of exponent, 3 of mantissa, largest 448) is off by at most 1 in 17 for elements down to
    1 / 28672 of the block's largest, e5m2 (largest 57344) by at most 1 in 9 down to 1 / 9.4e8 of it;
    smaller elements by at most 2^-10 or 2^-17 of a scale. With m = min(block, n) - 1 and u = 1 / 17,
    t = 2^-10 (1 / 9, 2^-17), delta = 1 - u^2 - m (t / largest)^2: 0.9965 or 0.9877 for blocks of 256.
    Rounded to nearest even. The sign of zero is kept. Biased: use error feedback or difference compression.
    (Blocks whose max|x| is below 1e-35, where scales are denormal, can be worse.) NaN and infinity are
    refused.

    Payload: header (its parameter is the block, plus 2^24 for e5m2), ceil(n / block) float32 scales, n codes.

    Source of the formats: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv:2209.05433, table 1.

    Args:
        format: e4m3 or e5m2.
        block: elements that share a scale, a multiple of 16 in 16..65536.
    """

    wire_id: ClassVar[int] = 6
    name: ClassVar[str] = "fp8"
    format: Format = "e4m3"
    block: int = 256

    def __post_init__(self) -> None:
        if self.format not in _FORMATS:
            raise ConfigError(f"format must be one of {', '.join(_FORMATS)}, got {self.format!r}")
        check_block(self.block, self.format)

    @property
    def codec(self) -> Codec:
        """The format."""
        return self.format

    @property
    def parameter(self) -> int:
        """The block, and the number of the format above it."""
        return self.block | list(_FORMATS).index(self.format) << _FORMAT_AT

    def delta(self, n: int) -> float:
        """1 - u^2 - m (t / largest)^2: see the class."""
        mantissa, t = _FORMATS[self.format]
        u = 1 / (2 ** (mantissa + 1) + 1)
        m = max(0, min(self.block, n) - 1)
        return float(1 - u**2 - m * (t / kernels.TOP_LEVEL[self.format]) ** 2)

    @classmethod
    def from_payload(cls, payload: Payload) -> Fp8:
        """Format and block as in the header."""
        codec, block = cls._read_parameters(as_bytes(payload), None)
        return cls(codec, block)  # type: ignore[arg-type]  # the codec is one of the formats

    @classmethod
    def read_parameter(cls, parameter: int) -> tuple[Codec, int]:
        """Block and format; FrameError if there is no such format."""
        number, block = parameter >> _FORMAT_AT, parameter & ((1 << _FORMAT_AT) - 1)
        if number >= len(_FORMATS):
            raise FrameError(f"fp8 payload has format {number}, not 0 (e4m3) or 1 (e5m2)")
        return list(_FORMATS)[number], block
