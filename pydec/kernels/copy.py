"""Copies past the caches: what memory can do at most, and so the ruler of the benchmarks."""

from __future__ import annotations

from pydec.kernels._arrays import V, Vector
from pydec.kernels._library import native


def stream_copy(x: Vector, out: V) -> V:
    """Copy x to ``out`` with stores that neither read nor keep the overwritten cache lines.

    Faster than ``np.copyto`` for arrays larger than the caches, slower for smaller ones. Releases
    the GIL.

    Args:
        x: float32, shape (n,).
        out: float32, shape (n,), overwritten.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is not float32.
        ValueError: shapes disagree, arrays overlap, or ``out`` is read-only.

    Cost: reads 4 * n bytes, writes 4 * n bytes.
    """
    native.stream_f32(x, out)
    return out
