"""What the compressors that send indices and float32 values share: the payload's body and its decoders."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Payload, Vector, restore
from pydec.compress.selecting import Selecting
from pydec.compress.wire import (
    HEADER_BYTES,
    as_bytes,
    check_length,
    check_vector,
    check_weights,
    read_header,
)
from pydec.errors import FrameError

BODY_AT = 2 * HEADER_BYTES
"""Header, and 16 bytes that the compressor defines; then the indices and the values."""

MAX_ELEMENTS = (1 << 32) - 1
"""Indices are uint32."""


class Entries(NamedTuple):
    """Views of a body."""

    indices: NDArray[np.uint32]
    values: Vector

    def put_back(self, x: Vector, residual: Vector) -> None:
        """Make the residual after a selection what it was before x was added; as ``restore``."""
        residual[self.indices] = self.values
        restore(residual, x)


class Indexed(Selecting):
    """A global selection whose payload is BODY_AT bytes, c uint32 indices ascending, c float32 values."""

    name: ClassVar[str]
    """As it is registered."""

    @property
    def block(self) -> int:
        """The selection is global."""
        return 0

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Zeros, and the values at their indices."""
        check_vector("out", out)
        entries = self._read(as_bytes(payload), out.size)
        return kernels.sparse_decode(entries.indices, entries.values, out)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One sweep over ``out``; touches only the places that payloads name."""
        check_vector("out", out)
        check_weights(weights, payloads)
        entries = [self._read(as_bytes(payload), out.size) for payload in payloads]
        kernels.sparse_accumulate(
            [one.indices for one in entries], [one.values for one in entries], weights, out
        )

    @classmethod
    @abstractmethod
    def _read_count(cls, payload: Bytes, n: int | None) -> int:
        """Check the first BODY_AT bytes against n, or against the header's own n; the number of entries."""

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> Entries:
        """Check a whole payload and return views of it."""
        count = cls._read_count(payload, n)
        check_length(payload, BODY_AT + 8 * count, cls.name)
        entries = split(payload, count)
        increasing, bad = kernels.sparse_check(entries.indices, entries.values)
        if not increasing:
            raise FrameError(f"{cls.name} payload has indices that do not increase")
        if count and int(entries.indices[-1]) >= n:
            raise FrameError(f"{cls.name} payload has index {entries.indices[-1]} for n={n} elements")
        if bad:
            raise FrameError(f"{cls.name} payload has {bad} NaN or infinite values")
        return entries


def split(payload: Bytes, count: int) -> Entries:
    """Views of indices and values; nothing is checked."""
    values_at = BODY_AT + 4 * count
    indices = payload[BODY_AT:values_at].view(np.uint32)
    return Entries(indices, payload[values_at : values_at + 4 * count].view(np.float32))


def check_elements(name: str, n: int) -> None:
    """Raise ValueError if a vector has more elements than uint32 indices reach."""
    if n > MAX_ELEMENTS:
        raise ValueError(f"{name} encodes at most {MAX_ELEMENTS} elements at once, got {n}; split the vector")


def read_head(payload: Bytes, wire_id: int, name: str, n: int | None) -> tuple[int, int, int, int]:
    """Check header and length of the first BODY_AT bytes.

    Returns:
        The header's parameter, the number of elements, and the two 8-byte numbers after the header.
    """
    parameter, elements = read_header(payload, wire_id, name, n)
    if payload.size < BODY_AT:
        raise FrameError(f"{name} payload of {payload.size} bytes is shorter than its header of {BODY_AT}")
    first, second = map(int, payload[HEADER_BYTES:BODY_AT].view("<u8"))
    if elements > MAX_ELEMENTS:
        raise FrameError(f"{name} payload is for n={elements} elements, more than {MAX_ELEMENTS}")
    return parameter, elements, first, second
