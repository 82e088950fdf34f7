"""No compression: the float32 values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Payload, Vector, compressors
from pydec.compress.wire import (
    HEADER_BYTES,
    as_bytes,
    check_length,
    check_vector,
    check_weights,
    read_header,
    room,
    write_header,
)
from pydec.errors import FrameError

_STREAMED_BYTES = 1 << 20  # larger payloads go past the cache: they are sent, not read again here


@compressors.register("none")
@dataclass(frozen=True)
class Uncompressed(Compressor):
    """Send the float32 values as they are: lossless, 4 bytes per element, delta = 1.

    NaN and infinity pass through. Payload: header (its parameter is 0), then n float32.
    """

    wire_id: ClassVar[int] = 1
    lossless: ClassVar[bool] = True

    @property
    def block(self) -> int:
        """Every element is independent."""
        return 1

    def max_bytes(self, n: int) -> int:
        """16 + 4 n."""
        return HEADER_BYTES + 4 * n

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Copy x behind a header."""
        check_vector("x", x)
        payload = room(out, self.max_bytes(x.size), x.size)
        write_header(payload, self.wire_id, 0, x.size)
        body = payload[HEADER_BYTES:].view(np.float32)
        if x.nbytes < _STREAMED_BYTES:
            np.copyto(body, x)
        else:
            kernels.stream_copy(x, body)
        return payload.size

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Copy the values to ``out``."""
        check_vector("out", out)
        np.copyto(out, self.view(payload, out.size))
        return out

    def delta(self, n: int) -> float:
        """Nothing is lost."""
        return 1.0

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One pass over ``out`` and all payloads."""
        check_vector("out", out)
        check_weights(weights, payloads)
        vectors = [self.view(payload, out.size) for payload in payloads]
        kernels.mix([out, *vectors], [1.0, *weights], out)

    def check(self, payload: Payload, n: int) -> None:
        """As ``Compressor.check``, without decoding."""
        self.view(payload, n)

    @classmethod
    def from_payload(cls, payload: Payload) -> Uncompressed:
        """There is nothing to read beyond the header's validity."""
        cls._read(as_bytes(payload), None)
        return cls()

    def view(self, payload: Payload, n: int) -> Vector:
        """The n elements of the payload, read-only, without copying."""
        data = as_bytes(payload)
        self._read(data, n)
        check_length(data, self.max_bytes(n), "none")
        vector = data[HEADER_BYTES:].view(np.float32)
        vector.setflags(write=False)
        return vector

    @classmethod
    def _read(cls, payload: Bytes, n: int | None) -> None:
        parameter, _ = read_header(payload, cls.wire_id, "none", n)
        if parameter != 0:
            raise FrameError(f"none payload has parameter {parameter}, not 0")
