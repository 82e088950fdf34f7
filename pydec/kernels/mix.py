"""Weighted sums of vectors, the averaging step of gossip."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import V, out_for
from pydec.kernels._library import native


def mix(x: Sequence[V], weights: Sequence[float], out: V | None = None) -> V:
    """Weighted sum of vectors, ``out[i] = sum_k weights[k] * x[k][i]``.

    The sum runs in increasing k and rounds to float32 after every product and every addition, so
    the result has the same bits on every CPU and GPU. Releases the GIL.

    Args:
        x: K >= 1 float32 arrays of shape (n,), contiguous.
        weights: K finite numbers, rounded to float32; a mixing row sums to 1, but this is not required.
        out: shape (n,), overwritten. It may be exactly one of the ``x[k]`` (mixing in place) and must
            not overlap any of them in part. Allocated if None, of the kind of x[0].

    Returns:
        ``out``.

    Raises:
        TypeError: an array is not float32.
        ValueError: shapes disagree, an array is not contiguous, ``out`` is read-only or overlaps an
            input in part, K = 0, or a weight is not finite.

    Cost: reads 4 * K * n bytes, writes 4 * n bytes; bound by memory bandwidth.
    """
    out = out_for(x, out)
    native.mix_f32(x, weights, out)
    return out
