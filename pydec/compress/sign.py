"""Signs alone, with the mean magnitude of each block: one bit for each element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydec.compress.base import Payload, compressors
from pydec.compress.quantiser import Quantiser, check_block
from pydec.compress.wire import as_bytes
from pydec.kernels.quant import Codec


@compressors.register("sign")
@dataclass(frozen=True)
class Sign(Quantiser):
    """One bit per element and one float32 scale per block: x becomes +-mean|x| of its block.

    The error of a block of m elements is ||x||^2 - ||x||_1^2 / m, so delta = ||x||_1^2 / (m ||x||^2): at
    least 1 / min(block, n), which a block with a single nonzero element reaches; 2 / pi = 0.64 for normally
    distributed elements. The sign of zero is kept. Biased: use error feedback or difference compression.
    NaN and infinity are refused, and so are blocks whose magnitudes add up to more than float32 holds.

    Payload: header (its parameter is the block), ceil(n / block) float32 scales, bits (1: negative) in
    groups of 16 bytes: byte j holds elements j, j + 16, ..., j + 112 of its 128, from the low bit up.

    Source: Karimireddy, Rebjock, Stich, Jaggi, "Error Feedback Fixes SignSGD and other Gradient Compression
    Schemes", ICML 2019, arXiv:1901.09847, algorithm 1 and lemma 8, block by block.

    Args:
        block: elements that share a scale, a multiple of 128 in 128..65536.
    """

    wire_id: ClassVar[int] = 9
    name: ClassVar[str] = "sign"
    block: int = 256

    def __post_init__(self) -> None:
        check_block(self.block, "sign")

    @property
    def codec(self) -> Codec:
        """Signs."""
        return "sign"

    def delta(self, n: int) -> float:
        """1 / min(block, n), in the worst case."""
        return 1 / max(1, min(self.block, n))

    @classmethod
    def from_payload(cls, payload: Payload) -> Sign:
        """Block size as in the header."""
        return cls(cls._read_parameters(as_bytes(payload), None)[1])

    @classmethod
    def read_parameter(cls, parameter: int) -> tuple[Codec, int]:
        """The parameter is the block."""
        return "sign", parameter
