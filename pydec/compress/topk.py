"""Sparsification: only the entries of largest magnitude, exactly selected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pydec import kernels
from pydec.compress.base import Bytes, Payload, Vector, compressors
from pydec.compress.entries import BODY_AT, Indexed, check_elements, read_head, split
from pydec.compress.share import check_share, share_of
from pydec.compress.wire import HEADER_BYTES, as_bytes, nonfinite, room, write_header
from pydec.errors import FrameError

_DEFAULT_FRACTION = 0.01


@compressors.register("topk")
@dataclass(frozen=True)
class TopK(Indexed):
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
    name: ClassVar[str] = "topk"
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None

    def __post_init__(self) -> None:
        check_share(self.fraction, self.k, _DEFAULT_FRACTION)

    def count(self, n: int) -> int:
        """Number of entries that are sent of n."""
        return share_of(n, self.fraction, self.k)

    def max_bytes(self, n: int) -> int:
        """32 + 8 k; payloads are never shorter."""
        return BODY_AT + 8 * self.count(n)

    def delta(self, n: int) -> float:
        """k / n, and 1 for an empty vector."""
        return self.count(n) / n if n else 1.0

    @classmethod
    def from_payload(cls, payload: Payload) -> TopK:
        """Number of entries as in the header."""
        return cls(k=max(1, cls._read_count(as_bytes(payload), None)))

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        n, count = x.size, self.count(x.size)
        check_elements(self.name, n)
        payload = room(out, BODY_AT + 8 * count, n)
        write_header(payload, self.wire_id, 0, n)
        payload[HEADER_BYTES:BODY_AT].view("<u8")[:] = (count, 0)
        entries = split(payload, count)
        if residual is None:
            bad = kernels.topk_select(x, count, entries.indices, entries.values)
        else:
            bad = kernels.topk_feedback(x, residual, count, entries.indices, entries.values)
        if bad:
            if residual is not None:
                entries.put_back(x, residual)
            raise nonfinite(self.name, bad, n)
        return payload.size

    @classmethod
    def _read_count(cls, payload: Bytes, n: int | None) -> int:
        parameter, elements, count, filler = read_head(payload, cls.wire_id, cls.name, n)
        if parameter != 0 or filler != 0:
            raise FrameError(f"topk payload has parameter {parameter} and filler {filler}, not 0 and 0")
        if not min(elements, 1) <= count <= elements:
            raise FrameError(f"topk payload has k={count} entries of n={elements}")
        return count
