"""What the compressors that send a selection of the entries share: one encoder, with and without feedback."""

from __future__ import annotations

from abc import abstractmethod

from pydec.compress.base import Bytes, Compressor, Vector
from pydec.compress.wire import check_vector


class Selecting(Compressor):
    """A compressor whose encoder takes the residual, or None, and makes one pass over both."""

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Select and write; ValueError if an element is NaN or infinite, or becomes so scaled."""
        check_vector("x", x)
        return self._encode(x, None, out)

    def encode_feedback_into(self, x: Vector, residual: Vector, out: Bytes) -> int:
        """As ``Compressor.encode_feedback_into``, in one pass over x and residual."""
        check_vector("x", x)
        check_vector("residual", residual, x.size)
        return self._encode(x, residual, out)

    @abstractmethod
    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        """Encode x + residual into ``out``; the residual, if any, becomes what was not sent."""
