"""Tiles by their largest frequencies: what a gradient has of slow changes in few numbers."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from pydec import kernels
from pydec.compress.base import Bytes, Payload, Vector, compressors, restore
from pydec.compress.selecting import Selecting
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
from pydec.kernels.demo import DemoValues

_KINDS = typing.get_args(DemoValues)
_TILES = (16, 32, 64)


class _Shape(NamedTuple):
    tile: int
    k: int
    values: DemoValues


@compressors.register("demo")
@dataclass(frozen=True)
class DeMo(Selecting):
    """Send the k coefficients of largest magnitude of the cosine transform of every tile x tile elements.

    The vector is cut into runs of tile^2 elements, which are squares row after row; the last one is filled up
    with zeros. Every tile sends k coefficients, so a message's size depends on nothing but n. The transform
    is orthonormal, so delta = k / tile^2, times 1 - 2^-18 for bf16 and 1 - (k - 1) / 254^2 for int8, up to
    rounding. Biased: use error feedback or difference compression. NaN and infinity are refused, and
    coefficients of 2^116 (tile 64), 2^118 (32), 2^120 (16) or more.

    DeMo's momentum is error feedback whose residual decays: ``kernels.demo_encode`` with beta < 1.

    Payload: header (its parameter is k, plus 2^16 log2(tile), plus 2^24 times the kind of values: 0 for
    float32, 1 for bf16, 2 for int8), then the records that ``kernels.demo_bytes`` describes. With 32 of 4096
    coefficients 0.34 bits an element with float32 values, 0.22 with bf16, 0.16 with int8.

    Source: Peng, Quesnelle, Kingma, "DeMo: Decoupled Momentum Optimization", arXiv:2411.19870.

    Args:
        k: coefficients of every tile, 1..tile^2.
        tile: side of a tile: 16, 32 or 64.
        values: how coefficients are sent: float32, bf16 or int8 (one scale for a tile).
    """

    wire_id: ClassVar[int] = 15
    k: int = 32
    tile: int = 64
    values: DemoValues = "float32"

    def __post_init__(self) -> None:
        if self.tile not in _TILES:
            raise ConfigError(f"tile must be one of {', '.join(map(str, _TILES))}, got {self.tile}")
        if not 1 <= self.k <= self.tile**2:
            raise ConfigError(f"k must be in 1..{self.tile**2}, got {self.k}")
        if self.values not in _KINDS:
            raise ConfigError(f"values must be one of {', '.join(_KINDS)}, got {self.values!r}")

    @property
    def block(self) -> int:
        """The elements of a tile."""
        return self.tile**2

    def max_bytes(self, n: int) -> int:
        """16 and a record for each tile; payloads are never shorter."""
        return HEADER_BYTES + kernels.demo_bytes(n, self.tile, self.k, self.values)

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """The tiles that the coefficients stand for."""
        check_vector("out", out)
        shape, records = self._read(as_bytes(payload), out.size)
        return kernels.demo_decode(records, out, *shape)

    def delta(self, n: int) -> float:
        """k / tile^2, less what rounding the values takes; 1 for an empty vector."""
        if n == 0:
            return 1.0
        lost = {"float32": 0.0, "bf16": 2.0**-18, "int8": (self.k - 1) / 254**2}[self.values]
        return self.k / self.block * (1.0 - lost)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One sweep over ``out`` for all payloads of equal shape."""
        check_vector("out", out)
        check_weights(weights, payloads)
        read = [self._read(as_bytes(payload), out.size) for payload in payloads]
        # Rounding after every addition makes splitting the sum harmless.
        for shape, group in itertools.groupby(zip(read, weights, strict=True), lambda pair: pair[0][0]):
            same = list(group)
            kernels.demo_accumulate([r for (_, r), _ in same], [weight for _, weight in same], out, *shape)

    @classmethod
    def from_payload(cls, payload: Payload) -> DeMo:
        """Tile, coefficients and their kind as in the header."""
        shape, _ = cls._read_shape(as_bytes(payload), None)
        return cls(k=shape.k, tile=shape.tile, values=shape.values)

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes) -> int:
        n = x.size
        payload = room(out, self.max_bytes(n), n)
        log_tile = self.tile.bit_length() - 1
        write_header(payload, self.wire_id, self.k | log_tile << 16 | _KINDS.index(self.values) << 24, n)
        records = payload[HEADER_BYTES:]
        bad, large = kernels.demo_encode(x, residual, records, self.tile, self.k, self.values)
        if bad or large:
            if residual is not None:
                # Put back what was taken out; where that is not finite, restore() clears it.
                kernels.demo_accumulate([records], [1.0], residual, self.tile, self.k, self.values)
                restore(residual, x)
            if bad:
                raise nonfinite("demo", bad, n)
            raise ValueError(
                f"demo cannot encode {large} of {-(-n // self.block)} tiles, whose coefficients reach "
                f"2^{128 - 2 * log_tile}; scale the vector down"
            )
        return payload.size

    @classmethod
    def _read_shape(cls, payload: Bytes, n: int | None) -> tuple[_Shape, int]:
        """Check the header; return the shape of the tiles and the number of elements."""
        parameter, elements = read_header(payload, cls.wire_id, "demo", n)
        k, log_tile, kind = parameter & 0xFFFF, parameter >> 16 & 0xFF, parameter >> 24
        tile = 1 << log_tile
        if tile not in _TILES or not 1 <= k <= tile**2 or kind >= len(_KINDS):
            raise FrameError(f"demo payload has tile 2^{log_tile}, k={k} and values of kind {kind}")
        return _Shape(tile, k, _KINDS[kind]), elements

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> tuple[_Shape, Bytes]:
        """Check a whole payload and return the shape of its tiles and a view of their records."""
        shape, _ = cls._read_shape(payload, n)
        check_length(payload, HEADER_BYTES + kernels.demo_bytes(n, *shape), "demo")
        records: Bytes = payload[HEADER_BYTES:]
        if (at := kernels.demo_check(records, n, *shape)) != -(-n // shape.tile**2):
            raise FrameError(
                f"demo payload has places in tile {at} that do not increase, or bits after them, or values "
                "that are not finite or too large"
            )
        return shape, records
