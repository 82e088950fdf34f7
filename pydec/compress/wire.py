"""Header of every payload, and the checks that encoders and decoders share.

A payload starts with 16 bytes, little-endian: wire id (1 byte), format version (1), element type
(1), zero (1), a parameter of the compressor (4), number of elements n (8). What follows starts at a
multiple of 16 bytes, so views of it are aligned when the payload is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pydec.errors import FrameError

Vector: TypeAlias = NDArray[np.float32]
Bytes: TypeAlias = NDArray[np.uint8]
Payload: TypeAlias = Bytes | bytes | bytearray | memoryview

HEADER_BYTES = 16
FORMAT_VERSION = 1
_FLOAT32 = 1
_HEADER = struct.Struct("<BBBBIQ")
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def as_bytes(payload: Payload) -> Bytes:
    """The payload as a one-dimensional uint8 array, without copying.

    Raises:
        TypeError: it is no contiguous run of bytes.
    """
    if isinstance(payload, np.ndarray):
        if payload.dtype == np.uint8 and payload.ndim == 1 and payload.flags.c_contiguous:
            return payload
        raise TypeError(
            f"a payload must be a contiguous uint8 array of shape (length,), "
            f"got {payload.dtype} of shape {payload.shape}"
        )
    try:
        return np.frombuffer(payload, np.uint8)
    except (BufferError, TypeError, ValueError) as error:
        raise TypeError(
            f"a payload must be contiguous bytes, got {type(payload).__name__}: {error}"
        ) from None


def wire_id_of(payload: Bytes) -> int:
    """First byte of a payload; FrameError if there is none."""
    if payload.size == 0:
        raise FrameError("a payload of 0 bytes has no header")
    return int(payload[0])


def write_header(out: Bytes, wire_id: int, parameter: int, n: int) -> None:
    """Write the 16 bytes of a header to the start of ``out``."""
    _HEADER.pack_into(out, 0, wire_id, FORMAT_VERSION, _FLOAT32, 0, parameter, n)


def read_header(payload: Bytes, wire_id: int, name: str, n: int | None = None) -> tuple[int, int]:
    """Check a header and return (parameter, number of elements).

    Args:
        payload: the bytes; only their length and the header are looked at.
        wire_id: what the first byte must be.
        name: of the compressor, for messages.
        n: what the number of elements must be, if given.

    Raises:
        FrameError: too short, or a field is not what it must be.
    """
    if payload.size < HEADER_BYTES:
        raise FrameError(
            f"{name} payload of {payload.size} bytes is shorter than its header of {HEADER_BYTES}"
        )
    found, version, dtype, zero, parameter, elements = _HEADER.unpack_from(payload)
    if found != wire_id:
        raise FrameError(f"payload has wire id {found}, but {name} has {wire_id}")
    if version != FORMAT_VERSION:
        raise FrameError(f"{name} payload has format version {version}; this pydec reads {FORMAT_VERSION}")
    if dtype != _FLOAT32 or zero != 0:
        raise FrameError(
            f"{name} payload has element type {dtype} and filler {zero}, not {_FLOAT32} (float32) and 0"
        )
    if n is not None and elements != n:
        raise FrameError(f"{name} payload is for n={elements} elements, expected n={n}")
    return parameter, elements


def check_length(payload: Bytes, expected: int, name: str) -> None:
    """Raise FrameError unless the payload is exactly as long as its header says."""
    if payload.size != expected:
        raise FrameError(f"{name} payload has {payload.size} bytes, its header says {expected}")


def check_vector(name: str, x: Any, n: int | None = None) -> None:
    """Raise TypeError or ValueError unless x is a contiguous float32 array of shape (n,)."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise TypeError(f"{name} must be a float32 array, got {kind}; use np.asarray({name}, np.float32)")
    if x.ndim != 1 or not x.flags.c_contiguous:
        raise ValueError(
            f"{name} must be one-dimensional and contiguous, got shape {x.shape}; use np.ravel({name})"
        )
    if n is not None and x.size != n:
        raise ValueError(f"{name} must have {n} elements, got {x.size}")


def check_weights(weights: Sequence[float], payloads: Sequence[object]) -> None:
    """Raise ValueError unless there is one finite float32 weight for each payload."""
    if len(weights) != len(payloads):
        raise ValueError(f"got {len(weights)} weights for {len(payloads)} payloads; give one for each")
    for k, weight in enumerate(weights):
        if not math.isfinite(weight) or abs(weight) > _LARGEST_FLOAT32:
            raise ValueError(f"weights[{k}] must be a finite float32 number, got {weight}")


def room(out: Any, length: int, n: int) -> Bytes:
    """The first ``length`` bytes of ``out``, for a payload of n elements.

    Raises:
        TypeError: ``out`` is no contiguous uint8 array.
        ValueError: it is too short or read-only.
    """
    if (
        not isinstance(out, np.ndarray)
        or out.dtype != np.uint8
        or out.ndim != 1
        or not out.flags.c_contiguous
    ):
        raise TypeError(f"out must be a contiguous uint8 array of shape (length,), got {type(out).__name__}")
    if not out.flags.writeable:
        raise ValueError("out is read-only and would be written; pass a writeable array")
    if out.size < length:
        raise ValueError(
            f"out has {out.size} bytes, a payload of n={n} elements needs {length}; see max_bytes"
        )
    payload: Bytes = out[:length]
    return payload


def nonfinite(name: str, bad: int, n: int) -> ValueError:
    """The error of an encoder that has no code for NaN and infinity."""
    return ValueError(
        f"{name} cannot encode {bad} NaN or infinite of {n} elements; skip the step that made them or lower "
        "the learning rate (compressor 'none' sends them as they are)"
    )
