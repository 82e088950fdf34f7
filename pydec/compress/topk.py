"""Sparsification: only the entries of largest magnitude, exactly selected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Payload, Vector, compressors, restore
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
from pydec.errors import ConfigError, FrameError

_BODY_AT = 2 * HEADER_BYTES  # header, k as 8 bytes, 8 zero bytes
_MAX_ELEMENTS = (1 << 32) - 1  # indices are uint32
_CHECKED_AT_ONCE = 1 << 14  # indices compared with their successors in one go; bounds the temporary
_DEFAULT_FRACTION = 0.01


class _Body(NamedTuple):
    indices: NDArray[np.uint32]
    values: Vector


@compressors.register("topk")
@dataclass(frozen=True)
class TopK(Compressor):
    """Send the ceil(fraction * n) entries of largest magnitude, or exactly k of them.

    Exact over the whole vector; ties go to the lowest index. delta = k / n. Biased: use error
    feedback or difference compression. NaN and infinity are refused.

    Payload: header (its parameter is 0), k as 8 bytes, 8 zero bytes, k uint32 indices ascending,
    k float32 values. Vectors have fewer than 2^32 elements.

    Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, arXiv:1809.07599,
    definition 2.1 and algorithm 1.

    Args:
        fraction: share of the entries, in (0, 1]; read as the decimal number that it prints as, so
            0.01 of 700 is 7.
        k: number of entries, at least 1, in place of a fraction; all of them if the vector is shorter.
    """

    wire_id: ClassVar[int] = 2
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise ConfigError(f"fraction must be in (0, 1], got {self.fraction}")
        if self.k is not None and self.k < 1:
            raise ConfigError(f"k must be at least 1, got {self.k}")
        if self.k is not None and self.fraction != _DEFAULT_FRACTION:
            raise ConfigError(f"fraction={self.fraction} and k={self.k} exclude each other; give one of them")

    @property
    def block(self) -> int:
        """The selection is global."""
        return 0

    @cached_property
    def _exact_fraction(self) -> Fraction:
        return Fraction(repr(float(self.fraction)))

    def count(self, n: int) -> int:
        """Number of entries that are sent of n."""
        return min(n, self.k if self.k is not None else math.ceil(self._exact_fraction * n))

    def max_bytes(self, n: int) -> int:
        """32 + 8 k; payloads are never shorter."""
        return _BODY_AT + 8 * self.count(n)

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Select and write indices and values; ValueError if an element is NaN or infinite."""
        check_vector("x", x)
        payload, body = self._start(out, x.size)
        if bad := kernels.topk_select(x, body.values.size, body.indices, body.values):
            raise nonfinite("topk", bad, x.size)
        return payload.size

    def encode_feedback_into(self, x: Vector, residual: Vector, out: Bytes) -> int:
        """As ``Compressor.encode_feedback_into``, in one pass over x and residual."""
        check_vector("x", x)
        check_vector("residual", residual, x.size)
        payload, body = self._start(out, x.size)
        if bad := kernels.topk_feedback(x, residual, body.values.size, body.indices, body.values):
            residual[body.indices] = body.values
            restore(residual, x)
            raise nonfinite("topk", bad, x.size)
        return payload.size

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Zeros, and the values at their indices."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        out.fill(0.0)
        return kernels.scatter_accumulate(body.indices, body.values, 1.0, out)

    def delta(self, n: int) -> float:
        """k / n, and 1 for an empty vector."""
        return self.count(n) / n if n else 1.0

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """Touches only the places that payloads name; the others keep even a negative zero."""
        check_vector("out", out)
        check_weights(weights, payloads)
        bodies = [self._read(as_bytes(payload), out.size) for payload in payloads]
        for body, weight in zip(bodies, weights, strict=True):
            kernels.scatter_accumulate(body.indices, body.values, weight, out)

    @classmethod
    def from_payload(cls, payload: Payload) -> TopK:
        """Number of entries as in the header."""
        return cls(k=max(1, cls._read_count(as_bytes(payload), None)))

    def _start(self, out: Bytes, n: int) -> tuple[Bytes, _Body]:
        """Write everything but indices and values; return the payload and where these go."""
        if n > _MAX_ELEMENTS:
            raise ValueError(
                f"topk encodes at most {_MAX_ELEMENTS} elements at once, got {n}; split the vector"
            )
        count = self.count(n)
        payload = room(out, _BODY_AT + 8 * count, n)
        write_header(payload, self.wire_id, 0, n)
        payload[HEADER_BYTES:_BODY_AT].view("<u8")[:] = (count, 0)
        return payload, _split(payload, count)

    @classmethod
    def _read_count(cls, payload: Bytes, n: int | None) -> int:
        """Check header and k against n, or against the header's own n."""
        parameter, elements = read_header(payload, cls.wire_id, "topk", n)
        if payload.size < _BODY_AT:
            raise FrameError(f"topk payload of {payload.size} bytes is shorter than its header of {_BODY_AT}")
        count, filler = map(int, payload[HEADER_BYTES:_BODY_AT].view("<u8"))
        if parameter != 0 or filler != 0:
            raise FrameError(f"topk payload has parameter {parameter} and filler {filler}, not 0 and 0")
        if elements > _MAX_ELEMENTS or not min(elements, 1) <= count <= elements:
            raise FrameError(f"topk payload has k={count} entries of n={elements}")
        return count

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return views of it."""
        count = cls._read_count(payload, n)
        check_length(payload, _BODY_AT + 8 * count, "topk")
        body = _split(payload, count)
        if count and int(body.indices[-1]) >= n:
            raise FrameError(f"topk payload has index {body.indices[-1]} for n={n} elements")
        for start in range(0, count - 1, _CHECKED_AT_ONCE):
            piece = body.indices[start : start + _CHECKED_AT_ONCE + 1]
            if not np.all(piece[1:] > piece[:-1]):
                raise FrameError("topk payload has indices that do not increase")
        if bad := kernels.count_nonfinite(body.values):
            raise FrameError(f"topk payload has {bad} NaN or infinite values")
        return body


def _split(payload: Bytes, count: int) -> _Body:
    """Views of indices and values; nothing is checked."""
    values_at = _BODY_AT + 4 * count
    indices = payload[_BODY_AT:values_at].view(np.uint32)
    return _Body(indices, payload[values_at : values_at + 4 * count].view(np.float32))
