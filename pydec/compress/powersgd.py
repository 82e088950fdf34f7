"""Low rank: a vector read as a matrix and sent as two thin factors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Payload, Vector, compressors, restore
from pydec.compress.feedback import ErrorFeedback, check_state
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

_BODY_AT = 2 * HEADER_BYTES  # header, columns, draw key: 8 bytes each
_MAX_RANK, _MAX_ITERATIONS = 8, 16
_LINE = 16  # float32 elements of a cache line
_MAX_U64 = (1 << 64) - 1
# No sum of products that are decoded reaches this, so decoded values are finite.
_BOUND = float(np.finfo(np.float32).max) / 2


class _Body(NamedTuple):
    columns: int
    left: Vector
    right: Vector


@compressors.register("powersgd")
@dataclass(frozen=True)
class PowerSGD(Selecting):
    """Send P and Q, of a rank up to 8, whose product is a projection of the vector read as a matrix.

    The matrix holds the n elements row after row; its last row is filled up with zeros. By default it is
    nearly square: ``columns`` is the least odd multiple of 16 that is at least sqrt(n), and at most n. (Odd,
    so that elements of one column do not share a set of the caches.) For a model most of whose matrices have
    the same width, that width is the better choice, because then the rows are theirs.

    The directions that the iteration starts with are drawn from a hash of the draw key and of a sample of the
    vector (``kernels.powersgd_start``): equal vectors give equal bytes, others go to other directions, so
    that error feedback sends in the end whatever one draw misses. ``WarmStart`` starts from the last result
    instead.

    The decoded matrix is an orthogonal projection: never longer than the vector, up to rounding. In
    expectation over the draw keys delta = rank / columns: the projection keeps at least what a random
    subspace of that many dimensions holds of the rows, whose coordinates are exchangeable and of random
    signs. No single call promises more than delta = 0, and a matrix of low rank is kept whole. Biased: use
    error feedback or difference compression. NaN and infinity are refused, and vectors whose products
    overflow (above 1e33).

    Payload: header (its parameter is the rank, plus 256 times the iterations), columns and draw key as 8
    bytes each, float32 P then Q, direction by direction. The rank in use is at most the rows and the columns.

    Source: Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
    Optimization", NeurIPS 2019, arXiv:1905.13727, algorithm 1.

    Args:
        rank: columns of P and Q, 1..8.
        columns: of the matrix, at least 1; nearly square if None.
        iterations: of subspace iteration, 1..16; each further one reads the vector once more.
        draw_key: in 0..2^64 - 1; other directions with another key; ``keyed`` replaces it.
    """

    wire_id: ClassVar[int] = 14
    rank: int = 4
    columns: int | None = None
    iterations: int = 1
    draw_key: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= _MAX_RANK:
            raise ConfigError(f"rank must be in 1..{_MAX_RANK}, got {self.rank}")
        if self.columns is not None and self.columns < 1:
            raise ConfigError(f"columns must be at least 1, got {self.columns}")
        if not 1 <= self.iterations <= _MAX_ITERATIONS:
            raise ConfigError(f"iterations must be in 1..{_MAX_ITERATIONS}, got {self.iterations}")
        if not 0 <= self.draw_key <= _MAX_U64:
            raise ConfigError(f"draw_key must be in 0..2^64 - 1, got {self.draw_key}")

    @property
    def block(self) -> int:
        """The matrix is the whole vector."""
        return 0

    def shape(self, n: int) -> tuple[int, int]:
        """Rows and columns of the matrix that n elements become."""
        columns = self.columns
        if columns is None:
            columns = _LINE * ((math.isqrt(max(0, n - 1)) // _LINE + 1) | 1)
        columns = max(1, min(n, columns))
        return -(-n // columns), columns

    def factors(self, n: int) -> int:
        """The rank in use for n elements."""
        return min(self.rank, *self.shape(n))

    def max_bytes(self, n: int) -> int:
        """32 + 4 rank (rows + columns); payloads are never shorter."""
        return _BODY_AT + 4 * self.factors(n) * sum(self.shape(n))

    def decode(self, payload: Payload, out: Vector) -> Vector:
        """P Q^T."""
        check_vector("out", out)
        body = self._read(as_bytes(payload), out.size)
        if out.size == 0:
            return out
        return kernels.powersgd_decode(body.left, body.right, body.columns, out)

    def delta(self, n: int) -> float:
        """Rank / columns, in expectation over the draw keys; 1 if the rank in use is that of any matrix."""
        rows, columns = self.shape(n)
        factors = self.factors(n)
        return 1.0 if factors == min(rows, columns) else factors / columns

    def keyed(self, key: int) -> PowerSGD:
        """This compressor with another draw key."""
        return replace(self, draw_key=key)

    def accumulate(self, payloads: Sequence[Payload], weights: Sequence[float], out: Vector) -> None:
        """One pass over ``out`` for all payloads of equal columns."""
        check_vector("out", out)
        check_weights(weights, payloads)
        bodies = [self._read(as_bytes(payload), out.size) for payload in payloads]
        if out.size == 0:
            return
        # Rounding after every addition makes splitting the sum harmless.
        pairs = zip(bodies, weights, strict=True)
        for columns, group in itertools.groupby(pairs, lambda pair: pair[0].columns):
            same = list(group)
            kernels.powersgd_accumulate(
                [body.left for body, _ in same],
                [body.right for body, _ in same],
                [weight for _, weight in same],
                columns,
                out,
            )

    def encode_warm_into(self, x: Vector, residual: Vector | None, start: Vector, out: Bytes) -> int:
        """Encode x (or x + residual, as ``encode_feedback_into``) from directions of the caller's.

        Args:
            x: shape (n,).
            residual: shape (n,), updated, or None.
            start: shape (``factors(n) * columns``,), direction by direction; those that are all zeros are
                drawn. Becomes the Q that is sent, from which the next call may start.
            out: as for ``encode_into``.

        Raises:
            ValueError: as ``encode_into``; ``start`` is unchanged.
        """
        check_vector("x", x)
        if residual is not None:
            check_vector("residual", residual, x.size)
        check_vector("start", start, self.factors(x.size) * self.shape(x.size)[1])
        return self._encode(x, residual, out, start)

    @classmethod
    def from_payload(cls, payload: Payload) -> PowerSGD:
        """Rank, columns, iterations and draw key as in the header."""
        data = as_bytes(payload)
        rank, iterations, columns, _ = cls._read_shape(data, None)
        key = int(data[HEADER_BYTES:_BODY_AT].view("<u8")[1])
        return cls(rank=rank, columns=columns, iterations=iterations, draw_key=key)

    def _encode(self, x: Vector, residual: Vector | None, out: Bytes, start: Vector | None = None) -> int:
        n = x.size
        columns = self.shape(n)[1]
        payload = room(out, self.max_bytes(n), n)
        write_header(payload, self.wire_id, self.rank | self.iterations << 8, n)
        payload[HEADER_BYTES:_BODY_AT].view("<u8")[:] = (columns, self.draw_key)
        if n == 0:
            return payload.size
        factors = self.factors(n)
        left, right = _split(payload, n, columns, factors)
        kernels.powersgd_start(x, residual, self.draw_key, right)
        if start is not None:
            known, drawn = start.reshape(factors, columns), right.reshape(factors, columns)
            alive = known.any(axis=1)
            drawn[alive] = known[alive]
        bad = kernels.powersgd_iterate(x, residual, columns, left, right)
        a = x if residual is None else residual
        for _ in range(1, self.iterations if not bad else 1):
            kernels.powersgd_iterate(a, None, columns, left, right)
        if bad or not _is_bounded(left, right, factors):
            if residual is not None:
                restore(residual, x)
            if bad:
                raise nonfinite("powersgd", bad, n)
            raise ValueError(
                f"powersgd cannot encode {n} elements whose products overflow float32; scale them down "
                "(1e33 is safe)"
            )
        if residual is not None:
            kernels.powersgd_accumulate([left], [right], [-1.0], columns, residual)
        if start is not None:
            start[:] = right
        return payload.size

    @classmethod
    def _read_shape(cls, payload: Bytes, n: int | None) -> tuple[int, int, int, int]:
        """Check header and columns; return rank, iterations, columns and the number of elements."""
        parameter, elements = read_header(payload, cls.wire_id, "powersgd", n)
        if payload.size < _BODY_AT:
            raise FrameError(
                f"powersgd payload of {payload.size} bytes is shorter than its header of {_BODY_AT}"
            )
        iterations, rank = divmod(parameter, 256)
        columns = int(payload[HEADER_BYTES:_BODY_AT].view("<u8")[0])
        if not (1 <= rank <= _MAX_RANK and 1 <= iterations <= _MAX_ITERATIONS):
            raise FrameError(f"powersgd payload has rank {rank} and {iterations} iterations")
        if not 1 <= columns <= max(1, elements):
            raise FrameError(f"powersgd payload has {columns} columns for n={elements} elements")
        return rank, iterations, columns, elements

    @classmethod
    def _read(cls, payload: Bytes, n: int) -> _Body:
        """Check a whole payload and return views of it."""
        rank, _, columns, _ = cls._read_shape(payload, n)
        rows = -(-n // columns)
        factors = min(rank, rows, columns)
        check_length(payload, _BODY_AT + 4 * factors * (rows + columns), "powersgd")
        left, right = _split(payload, n, columns, factors)
        if n and not _is_bounded(left, right, factors):
            raise FrameError(
                "powersgd payload has NaN or infinite factors, or some whose product may be infinite"
            )
        return _Body(columns, left, right)


class WarmStart(ErrorFeedback):
    """Error feedback around powersgd that starts each vector's iteration where its last one ended.

    One step a message then follows the leading directions of vectors that change slowly, which is what
    PowerSGD was published with. Only the sender remembers; payloads are powersgd's own. Directions that
    vanished are drawn again.

    Args:
        compressor: encodes.
    """

    compressor: PowerSGD

    def __init__(self, compressor: PowerSGD) -> None:
        super().__init__(compressor)
        self._starts: dict[str, Vector] = {}

    def encode_into(self, key: str, x: Vector, out: Bytes) -> int:
        """As ``ErrorFeedback.encode_into``."""
        residual = self._residual(key, x)
        needed = self.compressor.factors(x.size) * self.compressor.shape(x.size)[1]
        start = self._starts.get(key)
        if start is None or start.size != needed:
            start = self._starts[key] = np.zeros(needed, np.float32)
        return self.compressor.encode_warm_into(x, residual, start, out)

    def reset(self) -> None:
        """Forget all residuals and directions."""
        super().reset()
        self._starts.clear()

    def state_dict(self) -> dict[str, Vector]:
        """Copies of all residuals, as ``residual:key``, and directions, as ``start:key``."""
        residuals = {f"residual:{key}": residual for key, residual in super().state_dict().items()}
        return residuals | {f"start:{key}": start.copy() for key, start in self._starts.items()}

    def load_state_dict(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Replace everything by copies of what is in ``state``.

        Raises:
            ConfigError: an entry is no finite float32 vector, or has another name; nothing has changed then.
        """
        loaded: dict[str, dict[str, Vector]] = {"residual": {}, "start": {}}
        for name, array in state.items():
            kind, _, key = name.partition(":")
            if kind not in loaded:
                raise ConfigError(f"warm start state {name!r} is neither residual:NAME nor start:NAME")
            loaded[kind][key] = check_state(name, array)
        super().load_state_dict(loaded["residual"])
        self._starts = loaded["start"]


def _is_bounded(left: Vector, right: Vector, factors: int) -> bool:
    """Whether every value that these factors decode to is a finite float32 number."""
    with np.errstate(invalid="ignore", over="ignore"):  # what is no number is not below the bound
        sizes = [np.abs(side.reshape(factors, -1)).max(axis=1).astype(np.float64) for side in (left, right)]
        return bool(sizes[0] @ sizes[1] <= _BOUND)


def _split(payload: Bytes, n: int, columns: int, factors: int) -> tuple[Vector, Vector]:
    """Views of P and Q; nothing is checked."""
    right_at = _BODY_AT + 4 * factors * (-(-n // columns))
    return payload[_BODY_AT:right_at].view(np.float32), payload[right_at:].view(np.float32)
