"""Reductions of vectors to one number.

Sums run in double over 16 fixed lanes and chunks of 2^16 elements, so their bits depend neither on
the register width nor on the number of threads. Every type of state vector is widened to double exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from pydec.kernels._arrays import Doubles, State, room
from pydec.kernels._library import native

if TYPE_CHECKING:
    import torch


def sqnorm(x: State) -> float:
    """Squared Euclidean norm, ``sum_i x[i]^2``, accumulated in double. Releases the GIL.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,).

    Raises:
        TypeError: x is an array of none of these types.
        ValueError: x is not one-dimensional and contiguous.

    Cost, with b bytes an element: reads b * n bytes.
    """
    return native.sqnorm_f32(x)


def sqdist(x: State, y: State) -> float:
    """Squared distance, ``sum_i (x[i] - y[i])^2``, differences and sum in double. Releases the GIL.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,).
        y: of the type of x, shape (n,); may be x.

    Raises:
        TypeError: an array is of none of these types, or y of another than x.
        ValueError: shapes disagree, or an array is not one-dimensional and contiguous.

    Cost, with b bytes an element: reads 2 b * n bytes.
    """
    return native.sqdist_f32(x, y)


def count_nonfinite(x: State) -> int:
    """Number of entries that are NaN or infinite. Releases the GIL.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,).

    Raises:
        TypeError: x is an array of none of these types.
        ValueError: x is not one-dimensional and contiguous.

    Cost, with b bytes an element: reads b * n bytes.
    """
    return native.count_nonfinite_f32(x)


@overload
def sqdists(
    x: Sequence[State], y: NDArray[np.floating[Any]], out: NDArray[np.float64] | None = None
) -> NDArray[np.float64]: ...
@overload
def sqdists(x: Sequence[State], y: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor: ...
def sqdists(x: Sequence[State], y: State, out: Doubles | None = None) -> Doubles:
    """Squared distances of m vectors to one, ``out[k] = sqdist(x[k], y)`` with the same bits.

    One pass over y instead of m. A NaN or an infinity in x[k] makes out[k] NaN or infinite and no
    other. Releases the GIL.

    Args:
        x: m arrays of shape (n,), of the type of y.
        y: float32, float64, float16 or bfloat16, shape (n,); may be one of
            the x.
        out: float64, shape (m,), overwritten. Allocated if None, of the kind of y.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape does not fit, an array is not one-dimensional and contiguous, or ``out`` is
            read-only or overlaps an input.

    Cost, with b bytes an element: reads b * (m + 1) * n bytes.
    """
    if out is None:
        out = room(y, len(x), "float64")
    native.sqdists_f32(x, y, out)
    return out


def checked_sqnorm(x: State) -> tuple[float, int]:
    """Squared norm, and how many entries are NaN or infinite, in one pass. Releases the GIL.

    Squares of finite numbers never overflow the double sum unless those are float64 and larger than 1e140, so
    the sum is finite exactly if every entry is; the entries are counted in a second pass only if it is not.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,).

    Raises:
        TypeError: x is an array of none of these types.
        ValueError: x is not one-dimensional and contiguous.

    Cost, with b bytes an element: reads b * n bytes; 2 b * n if x is not finite.
    """
    return native.checked_sqnorm_f32(x)
