"""The largest entries of every block, with error feedback, and the scatter that undoes it."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import UInt16s, V, Vector
from pydec.kernels._library import native


def block_topk_count(n: int, block: int, k: int) -> int:
    """Entries of a selection: k of every full block, ceil(k * L / block) of a last one of L elements."""
    return n // block * k + -(-k * (n % block) // block)


def block_topk_select(
    x: Vector, residual: Vector | None, block: int, k: int, indices: UInt16s, values: Vector
) -> int:
    """Select the entries of largest magnitude of every block, exactly, in one pass over memory.

    With ``a = x`` (residual None) or ``a = x + residual``: k entries of every full block,
    ceil(k * L / block) of a last one of L elements; ties go to the lowest index, NaN counts as larger
    than infinity. Output is in ascending order of blocks and of the indices within them. The residual
    becomes a with the selected entries set to 0. Releases the GIL; memory for one block's candidates
    belongs to the calling thread and is kept.

    Args:
        x: float32, shape (n,).
        residual: float32, shape (n,), updated, or None.
        block: elements of a block, 1..65536.
        k: entries to select of a block, 1..block.
        indices: uint16, shape (``block_topk_count(n, block, k)``,), overwritten; each counts from its
            block's start.
        values: float32, of the same shape, overwritten with the entries of a.

    Returns:
        The number of NaN and infinite entries of a. If it is not 0, refuse to send: the residual has
        been updated all the same, and is spoilt where a is not finite.

    Raises:
        TypeError: an array has another dtype.
        ValueError: block, k or a shape does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 n bytes (8 n with a residual, and writes 4 n), writes 6 bytes for each entry.
    """
    return native.block_topk_select_f32(x, residual, block, k, indices, values)


def block_topk_check(indices: UInt16s, n: int, block: int, k: int) -> int:
    """The first block whose indices do not increase or leave it; the number of blocks if there is none.

    Raises:
        TypeError: indices are not uint16.
        ValueError: block, k or the number of indices does not fit.
    """
    return native.block_topk_check(indices, n, block, k)


def block_topk_decode(indices: UInt16s, values: Vector, block: int, k: int, out: V) -> V:
    """Zeros, and the values at their places; returns ``out``.

    Args:
        indices: uint16, as ``block_topk_select`` writes them for ``out.size`` elements.
        values: float32, one for each index.
        block: elements of a block, 1..65536.
        k: entries of a block, 1..block.
        out: float32, shape (n,), overwritten.

    Raises:
        IndexError: the indices of a block do not increase or leave it; ``out`` is unchanged.
        TypeError: an array has another dtype.
        ValueError: block, k or a shape does not fit, arrays overlap, or ``out`` is read-only.

    Cost: writes 4 n bytes, reads 6 for each entry, twice the indices.
    """
    native.block_topk_decode_f32(indices, values, block, k, out)
    return out


def block_topk_accumulate(
    indices: Sequence[UInt16s],
    values: Sequence[Vector],
    weights: Sequence[float],
    block: int,
    k: int,
    out: V,
) -> V:
    """Add m selections in one sweep: for j = 0..m-1 in order, ``out[i] += weights[j] * values_j[i]``.

    Rounds to float32 after every product and every addition; returns ``out``. Releases the GIL.

    Args:
        indices: m uint16 arrays, as ``block_topk_select`` writes them for ``out.size`` elements.
        values: m float32 arrays, one value for each index.
        weights: m finite numbers, rounded to float32.
        block: elements of a block, 1..65536, of all messages.
        k: entries of a block, 1..block, of all messages.
        out: float32, shape (n,), updated.

    Raises:
        IndexError: the indices of a block do not increase or leave it; ``out`` is unchanged.
        TypeError: an array has another dtype.
        ValueError: block, k, a weight or a shape does not fit, an input overlaps ``out``, or ``out``
            is read-only; ``out`` is unchanged.

    Cost: reads 6 bytes for each entry, twice the indices, and touches their places of ``out``.
    """
    native.block_topk_accumulate_f32(indices, values, weights, block, k, out)
    return out
