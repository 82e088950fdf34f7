"""Exact selection of the largest entries, with error feedback, and the scatter that undoes it."""

from __future__ import annotations

from pydec.kernels._arrays import UInt32s, V, Vector
from pydec.kernels._library import native


def topk_select(x: Vector, k: int, indices: UInt32s, values: Vector) -> int:
    """Select the k entries of largest magnitude, exactly, in one pass over memory.

    Ties go to the lowest index; NaN counts as larger than infinity. Output is in ascending order of
    indices. A sample gives a threshold that is nearly always low enough, one pass collects what
    reaches it, and an exact search among these candidates gives the answer; where the threshold was
    too high, or too much reaches it, a search over all of x gives it instead, in about a dozen passes.
    Releases the GIL. The memory for candidates, 8 bytes each, belongs to the calling thread and is kept
    from call to call.

    Args:
        x: float32, shape (n,), n < 2^32: indices are always uint32.
        k: entries to select, 0 <= k <= n.
        indices: uint32, shape (k,), overwritten, ascending.
        values: float32, shape (k,), overwritten with ``x[indices]``.

    Returns:
        The number of NaN and infinite entries of x; refuse to send if it is not 0.

    Raises:
        TypeError: an array has another dtype.
        ValueError: k or a shape does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 * n bytes, writes 8 * k bytes.
    """
    return native.topk_select_f32(x, None, k, indices, values)


def topk_feedback(x: Vector, residual: Vector, k: int, indices: UInt32s, values: Vector) -> int:
    """Error feedback and selection in one pass: with ``a = x + residual``, select k entries of a.

    ``residual`` becomes a with the selected entries set to 0: what was not sent waits for the next
    call. Selection as in ``topk_select``. Source: Stich, Cordonnier, Jaggi, "Sparsified SGD with
    Memory", NeurIPS 2018, arXiv:1809.07599, algorithm 1.

    Args:
        x: float32, shape (n,), n < 2^32.
        residual: float32, shape (n,), updated.
        k: entries to select, 0 <= k <= n.
        indices: uint32, shape (k,), overwritten, ascending.
        values: float32, shape (k,), overwritten with ``a[indices]``.

    Returns:
        The number of NaN and infinite entries of a. If it is not 0, refuse to send: the residual
        has been updated all the same, and is spoilt where a is not finite.

    Raises:
        TypeError: an array has another dtype.
        ValueError: k or a shape does not fit, arrays overlap, or an output is read-only; nothing has
            been written then.

    Cost: reads 8 * n bytes, writes 4 * n + 8 * k bytes and the touched lines of k zeros.
    """
    if residual is None:
        raise TypeError("residual must be a float32 array, got None; topk_select selects without feedback")
    return native.topk_select_f32(x, residual, k, indices, values)


def scatter_accumulate(indices: UInt32s, values: Vector, weight: float, out: V) -> V:
    """Add sparse entries: ``out[indices[j]] += weight * values[j]`` for j = 0, 1, ... in order.

    Rounds to float32 after the product and after the addition; an index may occur more than once.
    Every index is checked before anything is written. Releases the GIL.

    Args:
        indices: uint32, shape (k,), any order.
        values: float32, shape (k,).
        weight: a finite number, rounded to float32.
        out: float32, shape (n,), updated.

    Returns:
        ``out``.

    Raises:
        IndexError: an index is n or more; ``out`` is unchanged.
        TypeError: an array has another dtype.
        ValueError: a shape or the weight does not fit, an input overlaps ``out``, or ``out`` is read-only.

    Cost: reads 8 * k bytes and touches k places of ``out``.
    """
    native.scatter_accumulate_f32(indices, values, weight, out)
    return out
