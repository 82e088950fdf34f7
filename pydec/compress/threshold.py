"""Sparsification by a threshold that adapts to the vector: about a share of the entries, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Payload, Vector, compressors, restore
from pydec.compress.selecting import Selecting
from pydec.compress.share import check_share, share_of
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

_BODY_AT = 2 * HEADER_BYTES  # header, target k as 8 bytes, number of entries as 8 bytes
_MAX_ELEMENTS = (1 << 32) - 1  # indices are uint32
_CHECKED_AT_ONCE = 1 << 14  # indices compared with their successors in one go; bounds the temporary
_DEFAULT_FRACTION = 0.01


class _Body(NamedTuple):
    indices: NDArray[np.uint32]
    values: Vector


@compressors.register("threshold")
@dataclass(frozen=True)
class Threshold(Selecting):
    """Send what reaches a threshold: about k = ceil(fraction * n) entries, from k / 2 to 2 k.

    The threshold is the magnitude of rank k / n in a sample of the vector, so a payload is a little
    longer or shorter than k entries. Fewer than ceil(k / 2) or more than min(2 k, n) are never sent:
    if the threshold asks for that, exactly the ceil(k / 2) or min(2 k, n) entries of largest
    magnitude are. The entries sent are always the largest, so delta = ceil(k / 2) / n; on average it
    is about k / n. Biased: use error feedback or difference compression. NaN and infinity are refused.

    Payload: header (its parameter is 0), k as 8 bytes, the number c of entries as 8 bytes, c uint32
    indices ascending, c float32 values. Vectors have fewer than 2^32 elements.

    Source: Sahu, Dutta, Abdelmoniem, Banerjee, Canini, Kalnis, "Rethinking gradient sparsification as
    total error minimization", NeurIPS 2021, arXiv:2108.00951 (hard threshold); the sample follows
    Lin, Han, Mao, Wang, Dally, "Deep Gradient Compression", ICLR 2018, arXiv:1712.01887, section 5.

    Args:
        fraction: share of the entries aimed at, in (0, 1]; read as the decimal number that it prints as.
        k: number of entries aimed at, at least 1, in place of a fraction.
    """

    wire_id: ClassVar[int] = 11
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None

    def __post_init__(self) -> None:
        check_share(self.fraction, self.k, _DEFAULT_FRACTION)

    @property
    def block(self) -> int:
        """The threshold is global."""
        return 0

    def bounds(self, n: int) -> tuple[int, int, int]:
        """Fewest, target and most entries that are sent of n."""
        return _bounds(n, share_of(n, self.fraction, self.k))

    def max_bytes(self, n: int) -> int:
        """32 + 8 min(2 k, n)."""
        return _BODY_AT + 8 * self.bounds(n)[2]

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Zeros, and the values at their indices."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        out.fill(0.0)
        return kernels.scatter_accumulate(body.indices, body.values, 1.0, out)

    def delta(self, n: int) -> float:
        """ceil(k / 2) / n, and 1 for an empty vector."""
        return self.bounds(n)[0] / n if n else 1.0

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """Touches only the places that payloads name; the others keep even a negative zero."""
        check_vector("out", out)
        check_weights(weights, payloads)
        bodies = [self._read(as_bytes(payload), out.size) for payload in payloads]
        for body, weight in zip(bodies, weights, strict=True):
            kernels.scatter_accumulate(body.indices, body.values, weight, out)

    @classmethod
    def from_payload(cls, payload: Payload) -> Threshold:
        """Target number of entries as in the header."""
        return cls(k=max(1, cls._read_counts(as_bytes(payload), None)[0]))

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        n = x.size
        if n > _MAX_ELEMENTS:
            raise ValueError(
                f"threshold encodes at most {_MAX_ELEMENTS} elements at once, got {n}; split the vector"
            )
        least, k, _ = self.bounds(n)
        place = room(out, self.max_bytes(n), n)
        count, bad = kernels.threshold_select(x, residual, k, least, place[_BODY_AT:])
        if bad:
            if residual is not None:
                body = _split(place, count)
                residual[body.indices] = body.values
                restore(residual, x)
            raise nonfinite("threshold", bad, n)
        write_header(place, self.wire_id, 0, n)
        place[HEADER_BYTES:_BODY_AT].view("<u8")[:] = (k, count)
        return _BODY_AT + 8 * count

    @classmethod
    def _read_counts(cls, payload: Bytes, n: int | None) -> tuple[int, int]:
        """Check header, target and number of entries against n, or against the header's own n."""
        parameter, elements = read_header(payload, cls.wire_id, "threshold", n)
        if payload.size < _BODY_AT:
            raise FrameError(
                f"threshold payload of {payload.size} bytes is shorter than its header of {_BODY_AT}"
            )
        k, count = map(int, payload[HEADER_BYTES:_BODY_AT].view("<u8"))
        if parameter != 0 or elements > _MAX_ELEMENTS or not min(elements, 1) <= k <= elements:
            raise FrameError(f"threshold payload has parameter {parameter} and k={k} of n={elements}")
        least, _, most = _bounds(elements, k)
        if not least <= count <= most:
            raise FrameError(f"threshold payload has {count} entries for k={k}, not {least}..{most}")
        return k, count

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return views of it."""
        _, count = cls._read_counts(payload, n)
        check_length(payload, _BODY_AT + 8 * count, "threshold")
        body = _split(payload, count)
        if count and int(body.indices[-1]) >= n:
            raise FrameError(f"threshold payload has index {body.indices[-1]} for n={n} elements")
        for start in range(0, count - 1, _CHECKED_AT_ONCE):
            piece = body.indices[start : start + _CHECKED_AT_ONCE + 1]
            if not np.all(piece[1:] > piece[:-1]):
                raise FrameError("threshold payload has indices that do not increase")
        if bad := kernels.count_nonfinite(body.values):
            raise FrameError(f"threshold payload has {bad} NaN or infinite values")
        return body


def _bounds(n: int, k: int) -> tuple[int, int, int]:
    return -(-k // 2), k, min(n, 2 * k)


def _split(payload: Bytes, count: int) -> _Body:
    """Views of indices and values; nothing is checked."""
    values_at = _BODY_AT + 4 * count
    indices = payload[_BODY_AT:values_at].view(np.uint32)
    return _Body(indices, payload[values_at : values_at + 4 * count].view(np.float32))
