"""Messages of (index, value) entries in ascending order of their indices: check, decode, weighted sum."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import UInt32s, V, Vector
from pydec.kernels._library import native


def sparse_check(indices: UInt32s, values: Vector) -> tuple[bool, int]:
    """Whether every index is larger than the one before it, and the number of NaN and infinite values.

    Args:
        indices: uint32, shape (k,).
        values: float32, shape (k,).

    Raises:
        TypeError: an array has another dtype.
        ValueError: shapes disagree.

    Cost: reads 8 k bytes.
    """
    return native.sparse_check(indices, values)


def sparse_decode(indices: UInt32s, values: Vector, out: V) -> V:
    """Zeros, and the values at their indices, in one sweep; returns ``out``. Releases the GIL.

    Args:
        indices: uint32, shape (k,), strictly increasing.
        values: float32, shape (k,).
        out: float32, shape (n,), overwritten.

    Raises:
        IndexError: indices do not increase or reach n; ``out`` is unchanged.
        TypeError: an array has another dtype.
        ValueError: shapes disagree, an input overlaps ``out``, or ``out`` is read-only.

    Cost: writes 4 n bytes, reads 8 k, the indices twice.
    """
    native.sparse_decode_f32(indices, values, out)
    return out


def sparse_accumulate(
    indices: Sequence[UInt32s], values: Sequence[Vector], weights: Sequence[float], out: V
) -> V:
    """Add m sparse vectors in one sweep: ``out[indices[j]] += weights[j] * values[j]``, j = 0..m-1 in order.

    Rounds to float32 after every product and every addition: the bits of m calls with one vector each.
    ``out`` is worked on in pieces that stay in cache while the entries of all messages are added to them.
    Returns ``out``. Releases the GIL.

    Args:
        indices: m uint32 arrays, each strictly increasing.
        values: m float32 arrays, one value for each index.
        weights: m finite numbers, rounded to float32.
        out: float32, shape (n,), updated.

    Raises:
        IndexError: indices do not increase or reach n; ``out`` is unchanged.
        TypeError: an array has another dtype.
        ValueError: a shape, count or weight does not fit, an input overlaps ``out``, or ``out`` is
            read-only; ``out`` is unchanged.

    Cost: reads 8 bytes for each entry, the indices twice, and touches the lines of ``out`` that have
    entries, once for all messages.
    """
    native.sparse_accumulate_f32(indices, values, weights, out)
    return out
