"""Reductions of float32 vectors to one number.

Sums run in double over 16 fixed lanes and chunks of 2^16 elements, so their bits depend neither on
the register width nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from pydec.kernels._arrays import Doubles, Vector, room
from pydec.kernels._library import native

if TYPE_CHECKING:
    import torch


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


@overload
def sqdists(
    x: Sequence[Vector], y: NDArray[np.float32], out: NDArray[np.float64] | None = None
) -> NDArray[np.float64]: ...
@overload
def sqdists(x: Sequence[Vector], y: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor: ...
def sqdists(x: Sequence[Vector], y: Vector, out: Doubles | None = None) -> Doubles:
    """Squared distances of m vectors to one, ``out[k] = sqdist(x[k], y)`` with the same bits.

    One pass over y instead of m. A NaN or an infinity in x[k] makes out[k] NaN or infinite and no
    other. Releases the GIL.

    Args:
        x: m float32 arrays of shape (n,).
        y: float32, shape (n,); may be one of the x.
        out: float64, shape (m,), overwritten. Allocated if None, of the kind of y.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape does not fit, an array is not one-dimensional and contiguous, or ``out`` is
            read-only or overlaps an input.

    Cost: reads 4 * (m + 1) * n bytes.
    """
    if out is None:
        out = room(y, len(x), "float64")
    native.sqdists_f32(x, y, out)
    return out


def checked_sqnorm(x: Vector) -> tuple[float, int]:
    """Squared norm, and how many entries are NaN or infinite, in one pass. Releases the GIL.

    Squares of finite float32 numbers never overflow the double sum, so the sum is finite exactly if
    every entry is; the entries are counted in a second pass only if it is not.

    Args:
        x: float32, shape (n,).

    Raises:
        TypeError: x is not a float32 array.
        ValueError: x is not one-dimensional and contiguous.

    Cost: reads 4 * n bytes; 8 * n if x is not finite.
    """
    return native.checked_sqnorm_f32(x)
