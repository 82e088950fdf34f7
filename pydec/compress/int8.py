"""Blockwise 8-bit quantisation: a quarter of the bytes, nearly all of the values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Payload, Vector, compressors
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

_MAX_BLOCK = 1 << 16
# The largest scale whose 127-fold is finite: the quotient itself was rounded up. Scales are not negative, so
# their bits are ordered like their values, and one integer comparison excludes negative ones,
# infinity and NaN as well.
_MAX_SCALE = np.nextafter(np.float32(np.finfo(np.float32).max / np.float32(127)), np.float32(0))
_MAX_SCALE_BITS = int(_MAX_SCALE.view(np.uint32))


class _Body(NamedTuple):
    block: int
    scales: Vector
    codes: NDArray[np.int8]


@compressors.register("int8")
@dataclass(frozen=True)
class Int8(Compressor):
    """One signed byte per element and one float32 scale per block: code = rint(x / scale).

    The scale is max|x| / 127 of its block, so the largest element is exact up to rounding and every
    other is off by at most half a scale. With m = min(block, n) - 1 that gives
    delta = 254^2 / (254^2 + m): 0.996 for blocks of 256. (Blocks with max|x| below 1e-36, where
    scales are denormal, can be worse.) Rounding to nearest is biased: use error feedback or
    difference compression. NaN and infinity are refused.

    Payload: header (its parameter is the block), ceil(n / block) float32 scales, n int8 codes in
    -127..127.

    Args:
        block: elements that share a scale, a multiple of 16 in 16..65536.
    """

    wire_id: ClassVar[int] = 3
    block: int = 256

    def __post_init__(self) -> None:
        if not 16 <= self.block <= _MAX_BLOCK or self.block % 16:
            raise ConfigError(f"block must be a multiple of 16 in 16..{_MAX_BLOCK}, got {self.block}")

    def max_bytes(self, n: int) -> int:
        """16 + 4 ceil(n / block) + n."""
        return HEADER_BYTES + 4 * kernels.int8_blocks(n, self.block) + n

    def encode_into(self, x: Vector, out: Bytes) -> int:
        """Quantise x behind a header; ValueError if an element is NaN, infinite or at float32's limit."""
        check_vector("x", x)
        payload = room(out, self.max_bytes(x.size), x.size)
        write_header(payload, self.wire_id, self.block, x.size)
        body = _split(payload, x.size, self.block)
        kernels.int8_encode(x, body.codes, body.scales, self.block)
        if not _scales_are_valid(body.scales):
            if bad := kernels.count_nonfinite(x):
                raise nonfinite("int8", bad, x.size)
            raise ValueError(
                f"int8 cannot encode magnitudes above {127 * float(_MAX_SCALE):.7g}, got {np.abs(x).max()}"
            )
        return payload.size

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Multiply every code by its block's scale."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        return kernels.int8_decode(body.codes, body.scales, out, body.block)

    def delta(self, n: int) -> float:
        """254^2 / (254^2 + m), m = min(block, n) - 1.

        Per block, m elements err by at most s / 2 and by no more than their magnitude, and one has
        magnitude 127 s: the ratio of squared error to squared norm is largest when all m are s / 2.
        """
        return 254**2 / (254**2 + max(0, min(self.block, n) - 1))

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One pass over ``out`` and all payloads of equal block."""
        check_vector("out", out)
        check_weights(weights, payloads)
        bodies = [self._read(as_bytes(payload), out.size) for payload in payloads]
        # Rounding after every addition makes splitting the sum harmless.
        for block, group in itertools.groupby(zip(bodies, weights, strict=True), lambda pair: pair[0].block):
            same = list(group)
            kernels.int8_accumulate(
                [body.codes for body, _ in same],
                [body.scales for body, _ in same],
                [weight for _, weight in same],
                out,
                block,
            )

    @classmethod
    def from_payload(cls, payload: Payload) -> Int8:
        """Block size as in the header."""
        return cls(cls._read_block(as_bytes(payload), None))

    @classmethod
    def _read_block(cls, payload: Bytes, n: int | None) -> int:
        block, _ = read_header(payload, cls.wire_id, "int8", n)
        if not 16 <= block <= _MAX_BLOCK or block % 16:
            raise FrameError(f"int8 payload has block {block}, not a multiple of 16 in 16..{_MAX_BLOCK}")
        return block

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return views of it."""
        block = cls._read_block(payload, n)
        check_length(payload, HEADER_BYTES + 4 * kernels.int8_blocks(n, block) + n, "int8")
        body = _split(payload, n, block)
        if not _scales_are_valid(body.scales):
            raise FrameError(f"int8 payload has a scale that is negative, not finite or above {_MAX_SCALE}")
        if body.codes.min(initial=0) < -127:
            raise FrameError("int8 payload has the code -128, which no encoder makes")
        return body


def _split(payload: Bytes, n: int, block: int) -> _Body:
    """Views of scales and codes; nothing is checked."""
    codes_at = HEADER_BYTES + 4 * kernels.int8_blocks(n, block)
    scales = payload[HEADER_BYTES:codes_at].view(np.float32)
    return _Body(block, scales, payload[codes_at : codes_at + n].view(np.int8))


def _scales_are_valid(scales: Vector) -> bool:
    return int(scales.view(np.uint32).max(initial=0)) <= _MAX_SCALE_BITS
