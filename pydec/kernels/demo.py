"""The largest coefficients of a cosine transform, tile by tile, and the tiles that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from pydec.kernels._arrays import Bytes, V, Vector
from pydec.kernels._library import native

DemoValues: TypeAlias = Literal["float32", "bf16", "int8"]
"""How a coefficient is sent: as it is, rounded to nearest even, or as a code with one scale for the tile."""


def demo_bytes(n: int, side: int, k: int, values: DemoValues) -> int:
    """Length of the records of n elements.

    Each of the ceil(n / side^2) tiles has one of equal length: k values (4, 2 or 1 bytes each) in ascending
    order of their indices, for int8 the scale (4 bytes), then the indices as 2 log2(side) bits each, lowest
    first, up to a whole byte.

    Raises:
        ValueError: n is negative, or another argument has no such value.
    """
    return native.demo_bytes(n, side, k, values)


def demo_encode(
    x: Vector,
    residual: Vector | None,
    records: Bytes,
    side: int,
    k: int,
    values: DemoValues = "float32",
    beta: float = 1.0,
) -> tuple[int, int]:
    """The k largest coefficients of every tile, in one pass; with momentum or error feedback as well.

    With ``a = x`` (residual None) or ``a = x + beta * residual``, rounded twice: runs of side^2 elements are
    tiles, row after row, the last one filled up with zeros. Their orthonormal DCT-II in both directions is
    computed by a fixed factorisation in float32; the k coefficients of largest magnitude are sent, ties to
    the lowest index. Coefficient (u, v), u along columns and v along rows, has the index v * side + u. The
    residual becomes a minus the decoded tile: with beta = 1 it is error feedback, with x a gradient and the
    residual a momentum it is DeMo's. The same bits on every CPU and for any number of threads. Releases the
    GIL.

    Source: Peng, Quesnelle, Kingma, "DeMo: Decoupled Momentum Optimization", arXiv:2411.19870, algorithm 1.

    Args:
        x: float32, shape (n,).
        residual: float32, shape (n,), updated, or None.
        records: uint8, shape (``demo_bytes(n, side, k, values)``,), overwritten.
        side: of a tile: 16, 32 or 64.
        k: coefficients of a tile, 1..side^2.
        values: "float32", "bf16" or "int8".
        beta: a finite number, rounded to float32.

    Returns:
        The number of NaN and infinite entries of a, and the number of tiles with a coefficient of 2^116 (side
        64), 2^118 (32), 2^120 (16) or more. Such tiles are encoded as zeros and their residual is a; refuse
        to send.

    Raises:
        TypeError: an array has another dtype.
        ValueError: an argument or a shape does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 n bytes (8 n with a residual, and writes 4 n); about 22 operations an element.
    """
    return native.demo_encode_f32(x, residual, records, side, k, values, beta)


def demo_check(records: Bytes, n: int, side: int, k: int, values: DemoValues) -> int:
    """The first tile whose record ``demo_encode`` cannot have written; the number of tiles if there is none.

    Its indices do not increase, bits after them are set, or a value is not finite or reaches the limit.

    Raises:
        TypeError: records are not uint8.
        ValueError: an argument or the length does not fit.
    """
    return native.demo_check(records, n, side, k, values)


def demo_decode(records: Bytes, out: V, side: int, k: int, values: DemoValues) -> V:
    """The tiles that the records stand for; returns ``out``.

    A tile is the sum of the coefficients' cosines along the rows, in ascending order of the indices, and then
    the transposed factorisation along the columns, in float32. Records that ``demo_check`` refuses give any
    numbers.

    Args:
        records: uint8, as ``demo_encode`` writes them for ``out.size`` elements.
        out: float32, shape (n,), overwritten.
        side: of a tile: 16, 32 or 64.
        k: coefficients of a tile.
        values: "float32", "bf16" or "int8".

    Raises:
        TypeError: an array has another dtype.
        ValueError: an argument or a shape does not fit, arrays overlap, or ``out`` is read-only.

    Cost: writes 4 n bytes; about 11 + 2 k / side operations an element.
    """
    native.demo_decode_f32(records, out, side, k, values)
    return out


def demo_accumulate(
    records: Sequence[Bytes], weights: Sequence[float], out: V, side: int, k: int, values: DemoValues
) -> V:
    """Add m messages in one sweep: for j = 0..m-1 in order, ``out[i] += weights[j] * decoded_j[i]``.

    Rounds to float32 after every product and every addition; returns ``out``. Releases the GIL.

    Args:
        records: m uint8 arrays, all with the same side, k and values.
        weights: m finite numbers, rounded to float32.
        out: float32, shape (n,), updated.
        side: of a tile: 16, 32 or 64.
        k: coefficients of a tile.
        values: "float32", "bf16" or "int8".

    Raises:
        TypeError: an array has another dtype.
        ValueError: an argument, a weight or a shape does not fit, an input overlaps ``out``, or ``out`` is
            read-only; ``out`` is unchanged.

    Cost: reads and writes 4 n bytes; m times the operations of ``demo_decode``.
    """
    native.demo_accumulate_f32(records, weights, out, side, k, values)
    return out
