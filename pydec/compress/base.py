"""What a compressor is: a rule that turns a float32 vector into fewer bytes and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class Compressor(ABC):
    """Encodes float32 vectors of shape (n,). Immutable; state such as error feedback lives outside.

    Payloads are self-describing, canonical, little-endian; the first byte is ``wire_id``.
    """

    wire_id: ClassVar[int]
    """First byte of every payload; never reused, never renumbered."""
    lossless: ClassVar[bool] = False
    """Whether decode(encode(x)) has the bits of x."""

    @property
    @abstractmethod
    def block(self) -> int:
        """Elements that are encoded independently of all others, or 0 if the rule is global.

        With block > 0, encoding pieces of a vector cut at multiples of block gives the same
        values as encoding it whole.
        """

    @abstractmethod
    def max_bytes(self, n: int) -> int:
        """Largest payload for n elements, in bytes."""

    @abstractmethod
    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Encode x into ``out`` (at least ``max_bytes(n)`` long); returns the payload's length."""

    @abstractmethod
    def decode(self, payload: Bytes | bytes | memoryview, out: Vector) -> Vector:
        """Decode into ``out``, shape (n,), and return it.

        Raises:
            FrameError: the bytes are no payload of this compressor for n elements.
        """

    @abstractmethod
    def delta(self, n: int) -> float:
        """Contraction: E||x - decode(encode(x))||^2 <= (1 - delta) ||x||^2, in (0, 1]."""

    def encode(self, x: Vector) -> bytes:
        """Encode x into new bytes; the training path uses ``encode_into``."""
        out = np.empty(self.max_bytes(x.size), np.uint8)
        return out[: self.encode_into(x, out)].tobytes()

    @abstractmethod
    def accumulate(self, payloads: Sequence[Bytes], weights: Sequence[float], out: Vector) -> None:
        """``out[i] += sum_k weights[k] * decode(payloads[k])[i]``, one rounding after each product
        and each addition, in increasing k. FrameError leaves ``out`` unchanged."""

    def encode_feedback_into(self, x: Vector, residual: Vector, out: Bytes) -> int:
        """Encode a = x + residual; residual becomes a - decode(payload). Returns the length."""
        a = x + residual
        length = self.encode_into(a, out)
        self.decode(out[:length], residual)
        np.subtract(a, residual, out=residual)
        return length
