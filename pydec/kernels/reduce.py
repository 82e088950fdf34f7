"""Reductions of float32 vectors to one number.

Sums run in double over 16 fixed lanes and chunks of 2^16 elements, so their bits depend neither on
the register width nor on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydec.kernels._library import native

Vector = NDArray[np.float32]


def sqnorm(x: Vector) -> float:
    """Squared Euclidean norm, ``sum_i x[i]^2``, accumulated in double. Releases the GIL.

    Args:
        x: float32, shape (n,).

    Raises:
        TypeError: x is not a float32 array.
        ValueError: x is not one-dimensional and contiguous.

    Cost: reads 4 * n bytes.
    """
    return native.sqnorm_f32(x)


def sqdist(x: Vector, y: Vector) -> float:
    """Squared distance, ``sum_i (x[i] - y[i])^2``, differences and sum in double. Releases the GIL.

    Args:
        x: float32, shape (n,).
        y: float32, shape (n,); may be x.

    Raises:
        TypeError: an array is not float32.
        ValueError: shapes disagree, or an array is not one-dimensional and contiguous.

    Cost: reads 8 * n bytes.
    """
    return native.sqdist_f32(x, y)


def count_nonfinite(x: Vector) -> int:
    """Number of entries that are NaN or infinite. Releases the GIL.

    Args:
        x: float32, shape (n,).

    Raises:
        TypeError: x is not a float32 array.
        ValueError: x is not one-dimensional and contiguous.

    Cost: reads 4 * n bytes.
    """
    return native.count_nonfinite_f32(x)
