"""Sparsification by a threshold that adapts to the vector: about a share of the entries, in one pass."""

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


@compressors.register("threshold")
@dataclass(frozen=True)
class Threshold(Indexed):
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
    name: ClassVar[str] = "threshold"
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None

    def __post_init__(self) -> None:
        check_share(self.fraction, self.k, _DEFAULT_FRACTION)

    def bounds(self, n: int) -> tuple[int, int, int]:
        """Fewest, target and most entries that are sent of n."""
        return _bounds(n, share_of(n, self.fraction, self.k))

    def max_bytes(self, n: int) -> int:
        """32 + 8 min(2 k, n)."""
        return BODY_AT + 8 * self.bounds(n)[2]

    def delta(self, n: int) -> float:
        """ceil(k / 2) / n, and 1 for an empty vector."""
        return self.bounds(n)[0] / n if n else 1.0

    @classmethod
    def from_payload(cls, payload: Payload) -> Threshold:
        """Target number of entries as in the header."""
        return cls(k=max(1, cls._read_counts(as_bytes(payload), None)[0]))

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        n = x.size
        check_elements(self.name, n)
        least, k, _ = self.bounds(n)
        place = room(out, self.max_bytes(n), n)
        count, bad = kernels.threshold_select(x, residual, k, least, place[BODY_AT:])
        if bad:
            if residual is not None:
                split(place, count).put_back(x, residual)
            raise nonfinite(self.name, bad, n)
        write_header(place, self.wire_id, 0, n)
        place[HEADER_BYTES:BODY_AT].view("<u8")[:] = (k, count)
        return BODY_AT + 8 * count

    @classmethod
    def _read_counts(cls, payload: Bytes, n: int | None) -> tuple[int, int]:
        """Check header, target and number of entries against n, or against the header's own n."""
        parameter, elements, k, count = read_head(payload, cls.wire_id, cls.name, n)
        if parameter != 0 or not min(elements, 1) <= k <= elements:
            raise FrameError(f"threshold payload has parameter {parameter} and k={k} of n={elements}")
        least, _, most = _bounds(elements, k)
        if not least <= count <= most:
            raise FrameError(f"threshold payload has {count} entries for k={k}, not {least}..{most}")
        return k, count

    @classmethod
    def _read_count(cls, payload: Bytes, n: int | None) -> int:
        return cls._read_counts(payload, n)[1]


def _bounds(n: int, k: int) -> tuple[int, int, int]:
    return -(-k // 2), k, min(n, 2 * k)
