"""Sparsification block by block: a message of fixed size, and no step that waits for the whole vector."""

from __future__ import annotations

import itertools
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
from pydec.errors import ConfigError, FrameError

_BODY_AT = 2 * HEADER_BYTES  # header, k as 8 bytes, 8 zero bytes
_MIN_BLOCK, _MAX_BLOCK = 64, 1 << 16  # places within a block are uint16
_DEFAULT_FRACTION = 0.01


class _Body(NamedTuple):
    block: int
    k: int
    values: Vector
    indices: NDArray[np.uint16]


@compressors.register("block-topk")
@dataclass(frozen=True)
class BlockTopK(Selecting):
    """Send the ceil(fraction * block) entries of largest magnitude of every block, or exactly k.

    A last block of L elements sends ceil(k * L / block). Ties go to the lowest index.
    delta = k / block, because every block sends at least that share of itself. Biased: use error
    feedback or difference compression. NaN and infinity are refused.

    Payload: header (its parameter is the block), k of a block as 8 bytes, 8 zero bytes, float32 values
    in ascending order of their places, uint16 places within the blocks: 32 + 6 bytes for each entry,
    whatever the values.

    Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, arXiv:1809.07599,
    definition 2.1, applied to every block.

    Args:
        fraction: share of the entries, in (0, 1]; read as the decimal number that it prints as.
        k: entries of every block, at least 1, in place of a fraction; at most the block.
        block: elements of a block, a multiple of 64 in 64..65536.
    """

    wire_id: ClassVar[int] = 10
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None
    block: int = 4096

    def __post_init__(self) -> None:
        check_share(self.fraction, self.k, _DEFAULT_FRACTION)
        if not _is_block(self.block):
            raise ConfigError(
                f"block must be a multiple of {_MIN_BLOCK} in {_MIN_BLOCK}..{_MAX_BLOCK}, got {self.block}"
            )

    @property
    def per_block(self) -> int:
        """Entries that are sent of a full block."""
        return share_of(self.block, self.fraction, self.k)

    def count(self, n: int) -> int:
        """Entries that are sent of n."""
        return kernels.block_topk_count(n, self.block, self.per_block)

    def max_bytes(self, n: int) -> int:
        """32 + 6 for each entry; payloads are never shorter."""
        return _BODY_AT + 6 * self.count(n)

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Zeros, and the values at their places."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        return kernels.block_topk_decode(body.indices, body.values, body.block, body.k, out)

    def delta(self, n: int) -> float:
        """k / block; for n below a block, the share of n that is sent; 1 for an empty vector."""
        if n == 0:
            return 1.0
        return self.per_block / self.block if n >= self.block else self.count(n) / n

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One sweep over ``out`` for all payloads of equal shape; touches only the places they name."""
        check_vector("out", out)
        check_weights(weights, payloads)
        bodies = [self._read(as_bytes(payload), out.size) for payload in payloads]
        # Rounding after every addition makes splitting the sum harmless.
        for _, group in itertools.groupby(zip(bodies, weights, strict=True), lambda pair: pair[0][:2]):
            same = list(group)
            kernels.block_topk_accumulate(
                [body.indices for body, _ in same],
                [body.values for body, _ in same],
                [weight for _, weight in same],
                same[0][0].block,
                same[0][0].k,
                out,
            )

    @classmethod
    def from_payload(cls, payload: Payload) -> BlockTopK:
        """Block and entries of a block as in the header."""
        block, k, _ = cls._read_shape(as_bytes(payload), None)
        return cls(k=k, block=block)

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        payload = room(out, self.max_bytes(x.size), x.size)
        write_header(payload, self.wire_id, self.block, x.size)
        payload[HEADER_BYTES:_BODY_AT].view("<u8")[:] = (self.per_block, 0)
        body = _split(payload, x.size, self.block, self.per_block)
        if bad := kernels.block_topk_select(
            x, residual, self.block, self.per_block, body.indices, body.values
        ):
            if residual is not None:
                # Put back what was taken out; where that is not finite, restore() clears it.
                kernels.block_topk_accumulate(
                    [body.indices], [body.values], [1.0], self.block, self.per_block, residual
                )
                restore(residual, x)
            raise nonfinite("block-topk", bad, x.size)
        return payload.size

    @classmethod
    def _read_shape(cls, payload: Bytes, n: int | None) -> tuple[int, int, int]:
        """Check header, block and k; return them and the number of elements."""
        block, elements = read_header(payload, cls.wire_id, "block-topk", n)
        if payload.size < _BODY_AT:
            raise FrameError(
                f"block-topk payload of {payload.size} bytes is shorter than its header of {_BODY_AT}"
            )
        k, filler = map(int, payload[HEADER_BYTES:_BODY_AT].view("<u8"))
        if not _is_block(block) or not 1 <= k <= block or filler != 0:
            raise FrameError(f"block-topk payload has block {block}, k={k} and filler {filler}")
        return block, k, elements

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return views of it."""
        block, k, _ = cls._read_shape(payload, n)
        check_length(payload, _BODY_AT + 6 * kernels.block_topk_count(n, block, k), "block-topk")
        body = _split(payload, n, block, k)
        if (at := kernels.block_topk_check(body.indices, n, block, k)) != -(-n // block):
            raise FrameError(f"block-topk payload has places in block {at} that do not increase or leave it")
        if bad := kernels.count_nonfinite(body.values):
            raise FrameError(f"block-topk payload has {bad} NaN or infinite values")
        return body


def _is_block(block: int) -> bool:
    return _MIN_BLOCK <= block <= _MAX_BLOCK and block % _MIN_BLOCK == 0


def _split(payload: Bytes, n: int, block: int, k: int) -> _Body:
    """Views of values and places; nothing is checked."""
    places_at = _BODY_AT + 4 * kernels.block_topk_count(n, block, k)
    values = payload[_BODY_AT:places_at].view(np.float32)
    return _Body(block, k, values, payload[places_at:].view(np.uint16))
