"""Sparsification with small entries: 8-bit values, and gaps of a few bits in place of indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pydec import kernels
from pydec.compress.base import Bytes, Payload, Vector, compressors, restore
from pydec.compress.entries import BODY_AT, check_elements, read_head
from pydec.compress.selecting import Selecting
from pydec.compress.share import check_share, share_of
from pydec.compress.wire import (
    HEADER_BYTES,
    as_bytes,
    check_vector,
    check_weights,
    nonfinite,
    room,
    write_header,
)
from pydec.errors import ConfigError, FrameError

_DEFAULT_FRACTION = 0.01
_MAX_BLOCK = 1 << 16
_FAULTS = {
    kernels.GAPS_BAD_LENGTH: "another length than its widths say",
    kernels.GAPS_BAD_WIDTH: "a width that its gaps do not need, or bits after the last gap",
    kernels.GAPS_BAD_INDEX: "an index beyond the last element",
    kernels.TOPK_BAD_SCALE: "a scale that is negative, not finite or too large",
    kernels.TOPK_BAD_CODE: "codes that no encoder makes",
}


class _Head(NamedTuple):
    block: int
    entries: int
    body: Bytes


@compressors.register("topk-int8")
@dataclass(frozen=True)
class TopKInt8(Selecting):
    """Send the ceil(fraction * n) entries of largest magnitude in about 18 bits each, or exactly k of them.

    The selection is that of ``topk``; values are quantised to 8 bits with a scale for every block of
    entries, as ``int8`` does to nearest, and the gaps between indices are packed in groups of 128, about 9.6
    bits each at 1 % and 13 at 0.1 % (uniformly spread). ``topk`` sends 64 bits. With d the contraction of
    int8 on blocks of entries, delta = d * k / n: what is sent has at least k / n of the squared norm, and of
    that at least d arrives. Biased: use error feedback, which keeps what quantisation lost at the sent
    places too. NaN and infinity are refused.

    Payload: header (its parameter is scale_block), k as 8 bytes, length of the rest as 8 bytes; then
    ceil(k / block) float32 scales, k int8 codes, ceil(k / 128) bytes with the groups' widths, and the groups
    of gaps, each in a multiple of 16 bytes: ``kernels.gaps_pack`` has the layout. Every block has a code of
    127 or -127 unless its scale is below 2^-100, widths are minimal and padding is 0, so that equal entries
    have one payload. Vectors have fewer than 2^32 elements.

    Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, arXiv:1809.07599,
    definition 2.1; composed with quantisation as by Basu, Data, Karakus, Diggavi, "Qsparse-local-SGD",
    NeurIPS 2019, arXiv:1906.02367, lemma 1.

    Args:
        fraction: share of the entries, in (0, 1]; read as the decimal number that it prints as.
        k: number of entries, at least 1, in place of a fraction; all of them if the vector is shorter.
        scale_block: entries that share a scale, a multiple of 16 in 16..65536.
    """

    wire_id: ClassVar[int] = 13
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None
    scale_block: int = 256

    def __post_init__(self) -> None:
        check_share(self.fraction, self.k, _DEFAULT_FRACTION)
        if not _is_block(self.scale_block):
            raise ConfigError(
                f"scale_block must be a multiple of 16 in 16..{_MAX_BLOCK}, got {self.scale_block}"
            )

    @property
    def block(self) -> int:
        """The selection is global."""
        return 0

    def count(self, n: int) -> int:
        """Number of entries that are sent of n."""
        return share_of(n, self.fraction, self.k)

    def max_bytes(self, n: int) -> int:
        """32, 1.02 for each value, and the most that gaps take: 14.6 bits each at 1 %, 18 at 0.1 %."""
        return BODY_AT + kernels.topk_int8_bound(n, self.count(n), self.scale_block)

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Zeros, and the values at their indices."""
        check_vector("out", out)
        head = self._read_head(as_bytes(payload), out.size)
        _refuse(kernels.topk_int8_decode(head.body, head.entries, head.block, out))
        return out

    def delta(self, n: int) -> float:
        """d * k / n with d = 254^2 / (254^2 + min(scale_block, k) - 1), and 1 for an empty vector."""
        if n == 0:
            return 1.0
        count = self.count(n)
        return 254**2 / (254**2 + min(self.scale_block, count) - 1) * count / n

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One sweep over ``out``; touches only the places that payloads name."""
        check_vector("out", out)
        check_weights(weights, payloads)
        heads = [self._read_head(as_bytes(payload), out.size) for payload in payloads]
        _, faults = kernels.topk_int8_accumulate(
            [head.body for head in heads],
            [head.entries for head in heads],
            [head.block for head in heads],
            weights,
            out,
        )
        _refuse(faults)

    @classmethod
    def from_payload(cls, payload: Payload) -> TopKInt8:
        """Number of entries and block as in the header."""
        head = cls._read_head(as_bytes(payload), None)
        return cls(k=max(1, head.entries), scale_block=head.block)

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        n, count = x.size, self.count(x.size)
        check_elements("topk-int8", n)
        place = room(out, self.max_bytes(n), n)
        length, bad, too_large = kernels.topk_int8_encode(
            x, residual, count, self.scale_block, place[BODY_AT:]
        )
        if bad or too_large:
            if residual is not None:
                restore(residual, x)
            if bad:
                raise nonfinite("topk-int8", bad, n)
            raise ValueError(
                f"topk-int8 cannot encode {too_large} blocks of entries with magnitudes near 3.4e38: "
                "they would decode to infinity"
            )
        write_header(place, self.wire_id, self.scale_block, n)
        place[HEADER_BYTES:BODY_AT].view("<u8")[:] = (count, length)
        return BODY_AT + length

    @classmethod
    def _read_head(cls, payload: Bytes, n: int | None) -> _Head:
        """Check header, block, number of entries and length."""
        block, elements, count, length = read_head(payload, cls.wire_id, "topk-int8", n)
        if not _is_block(block) or not min(elements, 1) <= count <= elements:
            raise FrameError(f"topk-int8 payload has block {block} and k={count} entries of n={elements}")
        if payload.size - BODY_AT != length:
            raise FrameError(
                f"topk-int8 payload has {payload.size} bytes, its header says {BODY_AT + length}"
            )
        return _Head(block, count, payload[BODY_AT:])


def _is_block(block: int) -> bool:
    return 16 <= block <= _MAX_BLOCK and block % 16 == 0


def _refuse(faults: int) -> None:
    """Raise FrameError if there is a fault."""
    if faults:
        found = [text for fault, text in _FAULTS.items() if faults & fault]
        raise FrameError(f"topk-int8 payload has {' and '.join(found)}")
