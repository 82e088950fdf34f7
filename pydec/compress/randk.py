"""Sparsification by lot: random entries, and a key in place of their indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

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

_BODY_AT = 3 * HEADER_BYTES  # header, k, draw key, key of the places, 0: 8 bytes each
_SCALED = 1 << 31  # this bit of the header's parameter; the others are the chunk
_MAX_U64 = (1 << 64) - 1
_DEFAULT_FRACTION = 0.01


class _Body(NamedTuple):
    chunk: int
    k: int
    key: int
    values: Vector


@compressors.register("randk")
@dataclass(frozen=True)
class RandK(Selecting):
    """Send ceil(fraction * chunks) random chunks of the entries, or exactly k, without their indices.

    Chunks are drawn one from each of k runs of equal size s (up to 1), so every entry has the chance
    1 / s. In expectation over the draw keys, delta = 1 / ceil(chunks / k), which is k / n for single
    entries and k that divides n. The key that decides the places is a hash of the draw key and of the
    vector itself and travels in the payload: equal vectors give equal bytes, others go to other places.
    (Only a vector that does not change from call to call stays with the same places.) NaN and infinity
    are refused.

    With ``unbiased`` the entries are multiplied by s: then E[decode(encode(x))] = x and
    E||decode(encode(x)) - x||^2 <= (s - 1) ||x||^2 (``variance``), which is a contraction for s = 1 only:
    ``delta`` is 0 otherwise, and error feedback does not converge.

    Payload: header (its parameter is the chunk, plus 2^31 if unbiased), k, draw
    key, key of the places and 0 as 8 bytes each, the chosen float32 values in ascending order of their
    indices.

    Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018, arXiv:1809.07599,
    definition 2.1 (rand_k), stratified.

    Args:
        fraction: share of the chunks, in (0, 1]; read as the decimal number that it prints as.
        k: number of chunks, at least 1, in place of a fraction.
        chunk: neighbouring entries that are sent together, 1..65536; 16 fill a cache line.
        unbiased: scale the values, for methods without error feedback.
        draw_key: in 0..2^64 - 1; equal vectors go to other places with another key; ``keyed`` replaces it.
    """

    wire_id: ClassVar[int] = 12
    oblivious: ClassVar[bool] = True
    fraction: float = _DEFAULT_FRACTION
    k: int | None = None
    chunk: int = 1
    unbiased: bool = False
    draw_key: int = 0

    def __post_init__(self) -> None:
        check_share(self.fraction, self.k, _DEFAULT_FRACTION)
        if not 1 <= self.chunk <= 1 << 16:
            raise ConfigError(f"chunk must be in 1..65536, got {self.chunk}")
        if not 0 <= self.draw_key <= _MAX_U64:
            raise ConfigError(f"draw_key must be in 0..2^64 - 1, got {self.draw_key}")

    @property
    def block(self) -> int:
        """The choice is global."""
        return 0

    def count(self, n: int) -> int:
        """Number of chunks that are sent of n elements."""
        return share_of(-(-n // self.chunk), self.fraction, self.k)

    def stratum(self, n: int) -> int:
        """The most chunks that one is drawn from."""
        chunks = -(-n // self.chunk)
        return -(-chunks // self.count(n)) if n else 1

    def max_bytes(self, n: int) -> int:
        """48 + 4 chunk k; a payload is shorter where the last chunk of the vector is short and sent."""
        return _BODY_AT + 4 * self.chunk * self.count(n)

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """Zeros, and the values at the places that the key decides."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        out.fill(0.0)
        return kernels.randk_accumulate([body.values], [body.chunk], [body.k], [body.key], [1.0], out)

    def delta(self, n: int) -> float:
        """1 / ceil(chunks / k), in expectation over the draw keys; if ``unbiased``, 0 unless all is sent."""
        stratum = self.stratum(n)
        return float(stratum == 1) if self.unbiased else 1.0 / stratum

    def variance(self, n: int) -> float | None:
        """ceil(chunks / k) - 1 if ``unbiased``: E||decode(encode(x)) - x||^2 <= variance ||x||^2."""
        return float(self.stratum(n) - 1) if self.unbiased else None

    def keyed(self, key: int) -> RandK:
        """This compressor with another draw key."""
        return replace(self, draw_key=key)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One sweep over ``out``; touches only the places that the keys decide."""
        check_vector("out", out)
        check_weights(weights, payloads)
        bodies = [self._read(as_bytes(payload), out.size) for payload in payloads]
        kernels.randk_accumulate(
            [body.values for body in bodies],
            [body.chunk for body in bodies],
            [body.k for body in bodies],
            [body.key for body in bodies],
            weights,
            out,
        )

    @classmethod
    def from_payload(cls, payload: Payload) -> RandK:
        """Chunk, scaling, number of chunks and draw key as in the header."""
        chunk, scaled, k, draw, _, _ = cls._read_head(as_bytes(payload), None)
        return cls(k=max(1, k), chunk=chunk, unbiased=scaled, draw_key=draw)

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        n, k = x.size, self.count(x.size)
        place = room(out, self.max_bytes(n), n)
        key, bad = kernels.randk_key(x, residual, self.draw_key)
        if bad:
            if residual is not None:
                restore(residual, x)
            raise nonfinite("randk", bad, n)
        payload = place[: _BODY_AT + 4 * kernels.randk_count(n, self.chunk, k, key)]
        write_header(payload, self.wire_id, self.chunk + _SCALED * self.unbiased, n)
        payload[HEADER_BYTES:_BODY_AT].view("<u8")[:] = (k, self.draw_key, key, 0)
        values = payload[_BODY_AT:].view(np.float32)
        source = x if residual is None else residual
        kernels.randk_gather(source, self.chunk, k, key, self.unbiased, values)
        if self.unbiased and (bad := kernels.count_nonfinite(values)):
            if residual is not None:
                restore(residual, x)
            raise ValueError(
                f"randk cannot encode {bad} of {n} elements, which overflow when multiplied by "
                f"{self.stratum(n)}; use unbiased=false"
            )
        if residual is not None:
            kernels.randk_scatter(values, self.chunk, k, key, -1.0, residual)
        return payload.size

    @classmethod
    def _read_head(cls, payload: Bytes, n: int | None) -> tuple[int, bool, int, int, int, int]:
        """Check header, chunk and k; return chunk, scaled, k, draw key, key and the number of elements."""
        parameter, elements = read_header(payload, cls.wire_id, "randk", n)
        if payload.size < _BODY_AT:
            raise FrameError(
                f"randk payload of {payload.size} bytes is shorter than its header of {_BODY_AT}"
            )
        scaled, chunk = divmod(parameter, _SCALED)
        k, draw, key, filler = map(int, payload[HEADER_BYTES:_BODY_AT].view("<u8"))
        if not 1 <= chunk <= 1 << 16 or filler != 0:
            raise FrameError(f"randk payload has chunk {chunk}, not in 1..65536, or filler {filler}, not 0")
        if not min(elements, 1) <= k <= -(-elements // chunk):
            raise FrameError(f"randk payload has k={k} chunks of {chunk} of n={elements}")
        return chunk, bool(scaled), k, draw, key, elements

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return a view of it."""
        chunk, _, k, _, key, _ = cls._read_head(payload, n)
        check_length(payload, _BODY_AT + 4 * kernels.randk_count(n, chunk, k, key), "randk")
        values = payload[_BODY_AT:].view(np.float32)
        if bad := kernels.count_nonfinite(values):
            raise FrameError(f"randk payload has {bad} NaN or infinite values")
        return _Body(chunk, k, key, values)
