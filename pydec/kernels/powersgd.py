"""Low-rank approximation of a vector that is read as a matrix, and the sums that undo it."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import V, Vector
from pydec.kernels._library import native


def powersgd_start(x: Vector, residual: Vector | None, seed: int, start: V) -> V:
    """Fill ``start`` with random directions that ``seed`` and ``a = x`` (or ``x + residual``) decide.

    Odd multiples of 2^-24 in (-1, 1), all alike and independent of one another. The generator's key is a hash
    of the seed, n and 1024 evenly spread lines of 16 elements of a (of all, where n is no more than that):
    other vectors get other directions, equal ones the same on every CPU. Releases the GIL.

    Args:
        x: float32, shape (n,).
        residual: float32, shape (n,), or None; unchanged.
        seed: in 0..2^64 - 1.
        start: float32, overwritten; rank times columns elements.

    Raises:
        TypeError: an array is not float32, or the seed is outside its range.
        ValueError: shapes disagree, arrays overlap, or ``start`` is read-only.

    Cost: touches at most 64 KiB of each input and writes ``start``.
    """
    native.powersgd_start_f32(x, residual, seed, start)
    return start


def powersgd_iterate(x: Vector, residual: Vector | None, columns: int, left: Vector, right: Vector) -> int:
    """One step of subspace iteration on the matrix that x holds row by row, in one pass over it.

    With ``a = x`` (residual None) or ``a = x + residual``, which the residual becomes; A is a as rows of
    ``columns`` elements, the last one filled up with zeros; Q0 is what ``right`` holds. Then P is an
    orthonormal basis of the columns of A Q0 and Q = A^T P, so that P Q^T = P P^T A is a projection of A and
    never longer. A direction of which the others leave less than 2^-18 becomes 0 in both. Sums over rows are
    in float in 16 lanes, because P may be any basis; everything else is in double. The same bits on every
    CPU. Releases the GIL; the sums in double belong to the calling thread and are kept.

    Source: Vogels, Karimireddy, Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
    Optimization", NeurIPS 2019, arXiv:1905.13727, algorithm 1. There A is read twice, for A Q0 and for A^T P;
    here A^T (A Q0) is summed in the same pass and takes part in the orthonormalisation.

    Args:
        x: float32, shape (n,).
        residual: float32, shape (n,), updated, or None.
        columns: elements of a row, at least 1.
        left: float32, shape (rank * ceil(n / columns),), overwritten with P, direction by direction.
        right: float32, shape (rank * columns,), rank in 1..8; Q0 on entry, Q on return, direction by
            direction.

    Returns:
        The number of NaN and infinite entries of a. If it is not 0, the factors mean nothing, and the
        residual has been updated all the same. The factors are not finite either if products of a overflow.

    Raises:
        TypeError: an array is not float32.
        ValueError: a shape does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 n bytes (8 n with a residual, and writes 4 n); 4 rank n operations in float, 4 rank n in
        double.
    """
    return native.powersgd_iterate_f32(x, residual, columns, left, right)


def powersgd_decode(left: Vector, right: Vector, columns: int, out: V) -> V:
    """``out = P Q^T``, rounding to float32 after every product and every sum, in order of the directions.

    Args:
        left: P, as ``powersgd_iterate`` writes it.
        right: Q.
        columns: elements of a row.
        out: float32, shape (n,), overwritten and returned.

    Raises:
        TypeError: an array is not float32.
        ValueError: a shape does not fit, arrays overlap, or ``out`` is read-only.

    Cost: writes 4 n bytes.
    """
    native.powersgd_decode_f32(left, right, columns, out)
    return out


def powersgd_accumulate(
    left: Sequence[Vector], right: Sequence[Vector], weights: Sequence[float], columns: int, out: V
) -> V:
    """Add m decoded matrices in one pass: for k = 0..m-1 in order, ``out[i] += weights[k] * decoded_k[i]``.

    Rounds to float32 after every product and every sum; returns ``out``. Releases the GIL.

    Args:
        left: m factors P; their ranks may differ.
        right: m factors Q.
        weights: m finite numbers, rounded to float32.
        columns: elements of a row, of all m.
        out: float32, shape (n,), updated.

    Raises:
        TypeError: an array is not float32.
        ValueError: a weight or a shape does not fit, an input overlaps ``out``, or ``out`` is read-only;
            ``out`` is unchanged.

    Cost: reads and writes 4 n bytes, whatever m.
    """
    native.powersgd_accumulate_f32(left, right, weights, columns, out)
    return out
