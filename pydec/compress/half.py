"""What bfloat16 and float16 share: payloads of 16-bit codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Payload, Vector, restore
from pydec.compress.wire import (
    HEADER_BYTES,
    as_bytes,
    check_length,
    check_vector,
    check_weights,
    nonfinite,
    read_header,
    room,
    write_header,
)
from pydec.errors import FrameError
from pydec.kernels.cast import Half


class HalfPrecision(Compressor):
    """Every element rounded to 16 bits, to nearest even. Payload: header (its parameter is 0), n codes."""

    name: ClassVar[Half]
    """As registered."""
    largest: ClassVar[float]
    """Largest finite number."""

    @property
    def block(self) -> int:
        """Every element is independent."""
        return 1

    def max_bytes(self, n: int) -> int:
        """16 + 2 n; payloads are never shorter."""
        return HEADER_BYTES + 2 * n

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Round x behind a header; ValueError if an element is NaN, infinite or rounds to infinity."""
        check_vector("x", x)
        payload = self._start(out, x.size)
        if bad := kernels.cast_encode(x, _codes(payload), self.name):
            raise self._refusal(x, bad)
        return payload.size

    def encode_feedback_into(self, x: Vector, residual: Vector, out: Bytes) -> int:
        """As ``Compressor.encode_feedback_into``, in one pass over x and residual."""
        check_vector("x", x)
        check_vector("residual", residual, x.size)
        payload = self._start(out, x.size)
        codes = _codes(payload)
        if bad := kernels.cast_encode(x, codes, self.name, residual=residual):
            values = kernels.cast_decode(codes, np.empty_like(x), self.name)
            values[~np.isfinite(values)] = 0.0  # the residual holds x + residual there
            residual += values
            error = self._refusal(residual, bad)
            restore(residual, x)
            raise error
        return payload.size

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """The values of the codes, exactly."""
        check_vector("out", out)
        return kernels.cast_decode(self._read(as_bytes(payload), out.size), out, self.name)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One pass over ``out`` and all payloads."""
        check_vector("out", out)
        check_weights(weights, payloads)
        codes = [self._read(as_bytes(payload), out.size) for payload in payloads]
        kernels.cast_accumulate(codes, weights, out, self.name)

    @classmethod
    def from_payload(cls, payload: Payload) -> HalfPrecision:
        """There is nothing to read beyond the header's validity."""
        cls._read_parameter(as_bytes(payload), None)
        return cls()

    def _start(self, out: Bytes, n: int) -> Bytes:
        payload = room(out, self.max_bytes(n), n)
        write_header(payload, self.wire_id, 0, n)
        return payload

    def _refusal(self, a: Vector, bad: int) -> ValueError:
        if found := kernels.count_nonfinite(a):
            return nonfinite(self.name, found, a.size)
        return ValueError(
            f"{self.name} cannot encode {bad} of {a.size} elements: magnitudes reach {np.abs(a).max():.7g}, "
            f"and its largest number is {self.largest:.7g}; lower the learning rate or use bf16 or int8"
        )

    @classmethod
    def _read_parameter(cls, payload: Bytes, n: int | None) -> None:
        parameter, _ = read_header(payload, cls.wire_id, cls.name, n)
        if parameter != 0:
            raise FrameError(f"{cls.name} payload has parameter {parameter}, not 0")

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> NDArray[np.uint16]:
        """Check a whole payload and return a view of its codes."""
        cls._read_parameter(payload, n)
        check_length(payload, HEADER_BYTES + 2 * n, cls.name)
        codes = _codes(payload)
        if bad := kernels.cast_count_nonfinite(codes, cls.name):
            raise FrameError(f"{cls.name} payload has {bad} NaN or infinite values")
        return codes


def _codes(payload: Bytes) -> NDArray[np.uint16]:
    return payload[HEADER_BYTES:].view(np.uint16)
