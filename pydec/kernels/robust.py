"""Coordinate-wise robust averages: median, trimmed mean, mean around the median.

In every coordinate the n values are sorted; a NaN counts as +infinity, and infinities keep their place
in the order. So up to f values that are NaN or infinite are dropped like any others (fewer than half
by the median), and the result is finite. Up to 16 vectors are sorted in registers by a network
(19 comparators for 8, 60 for 16), more in groups of 16 that are merged. Sums run over sorted values in a
fixed order and round to float32 after every addition, so the result has the same bits on every CPU and
for every order of the vectors. A result of zero is +0. Vectors of float64 are averaged in float64; those of
16 bits in float32, and the result is rounded once. The calls release the GIL.

Large vectors that lie at equal offsets from a 4 KiB page, as separate large arrays do, compete for the
same cache lines: 16 of them take up to twice the time of vectors at spread offsets.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import Doubles, S, out_for
from pydec.kernels._library import native


def median(x: Sequence[S], out: S | None = None, largest: Doubles | None = None) -> S:
    """Coordinate-wise median; for even n the mean of the two middles, ``0.5 * a + 0.5 * b``.

    Finite where less than half of the values are NaN or infinite.

    Args:
        x: 1 <= n <= 256 arrays of shape (d,), contiguous; float32, float64, float16 or bfloat16.
        out: shape (d,), overwritten. It may be exactly one of the ``x[k]`` and must not overlap any of
            them in part. Of the type of the x. Allocated if None, of the kind of x[0].
        largest: float64, shape (1,), overwritten by the largest magnitude of all values, infinity if one is
            NaN, which the sorting finds by the way; None if nobody asks. On the CPU only.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: shapes disagree, an array is not contiguous, ``out`` is read-only or overlaps an
            input in part, or n is out of range.

    Cost, with b bytes an element: reads b * n * d bytes, writes b * d bytes; 2 to 4 minima or maxima per
    value for n <= 16.
    """
    out = out_for(x, out)
    native.median_f32(x, out, largest)
    return out


def trimmed_mean(x: Sequence[S], f: int, out: S | None = None, largest: Doubles | None = None) -> S:
    """Coordinate-wise mean without the f lowest and the f highest of n values, 2f < n.

    The n - 2f values are added from the lowest to the highest, and the sum is divided once.

    Source: Yin, Chen, Kannan, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates", ICML 2018, arXiv:1803.01498, definition 2.

    Args:
        x: as for ``median``.
        f: values dropped at each end, 0 <= f < n / 2.
        out: as for ``median``.
        largest: as for ``median``.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: as ``median``, or f is out of range.

    Cost, with b bytes an element: reads b * n * d bytes, writes b * d bytes.
    """
    out = out_for(x, out)
    native.trimmed_mean_f32(x, f, out, largest)
    return out


def mean_around_median(x: Sequence[S], f: int, out: S | None = None, largest: Doubles | None = None) -> S:
    """Coordinate-wise mean of the n - f values closest to the median, 2f < n.

    The kept values are neighbours in sorted order s. With m = n - f and the median c, of s[k] and
    s[k + m] (k < f) the first is kept unless c - s[k] > s[k + m] - c in float32; these f values are added
    first, then s[f], ..., s[m - 1], and the sum is divided once by m.

    Source: Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018, arXiv:1802.10116
    (mean around median).

    Args:
        x: as for ``median``.
        f: values dropped, 0 <= f < n / 2.
        out: as for ``median``.
        largest: as for ``median``.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: as ``median``, or f is out of range.

    Cost, with b bytes an element: reads b * n * d bytes, writes b * d bytes.
    """
    out = out_for(x, out)
    native.mean_around_median_f32(x, f, out, largest)
    return out
