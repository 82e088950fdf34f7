"""Weighted sums of vectors, the averaging step of gossip."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import S, out_for
from pydec.kernels._library import native


def mix(x: Sequence[S], weights: Sequence[float], out: S | None = None) -> S:
    """Weighted sum of vectors, ``out[i] = sum_k weights[k] * x[k][i]``.

    The sum runs in increasing k and rounds to float32 after every product and every addition, so
    the result has the same bits on every CPU and GPU. In float64 everything is float64, the weights too;
    vectors of 16 bits are summed in float32, and the sum is rounded once. Releases the GIL.

    Args:
        x: K >= 1 arrays of shape (n,), contiguous; float32, float64, float16 or bfloat16.
        weights: K finite numbers, rounded to float32; a mixing row sums to 1, but this is not required.
        out: shape (n,), overwritten. It may be exactly one of the ``x[k]`` (mixing in place) and must
            not overlap any of them in part. Of the type of the x. Allocated if None, of
            the kind of x[0].

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: shapes disagree, an array is not contiguous, ``out`` is read-only or overlaps an
            input in part, K = 0, or a weight is not finite.

    Cost, with b bytes an element: reads b * K * n bytes, writes b * n bytes; bound by memory bandwidth.
    """
    out = out_for(x, out)
    native.mix_f32(x, weights, out)
    return out
