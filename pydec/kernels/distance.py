"""Distances between vectors, and the sums that use them: Krum, nearest-neighbour averages, clipping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from pydec.kernels._arrays import Bytes, Doubles, State, Vector, room
from pydec.kernels._library import native
from pydec.kernels.quant import Codec

if TYPE_CHECKING:
    import torch

Matrix = NDArray[np.float64]
MOST_PAIRED = 64
"""Vectors that ``quant_pair_sqdists`` takes at once."""


@overload
def gram(
    x: Sequence[NDArray[np.floating[Any]]], centre: State | None = None, out: Matrix | None = None
) -> Matrix: ...
@overload
def gram(
    x: Sequence[torch.Tensor], centre: State | None = None, out: torch.Tensor | None = None
) -> torch.Tensor: ...
def gram(x: Sequence[State], centre: State | None = None, out: Doubles | None = None) -> Doubles:
    """Gram matrix of n vectors about a centre: ``out[i, j] = <x[i] - centre, x[j] - centre>``.

    Differences, products and sums are doubles, in a fixed order of additions: same bits on every
    CPU. With a centre among the vectors, such as the own model, the distances that
    ``squared_distances`` takes from it do not cancel, however close together the vectors lie. A NaN or
    an infinity in x[k] makes row and column k NaN or infinite and no other. Releases the GIL.

    Args:
        x: n >= 1 arrays of shape (d,), float32, float64, float16 or bfloat16.
        centre: of the type of x[0], shape (d,); may be one of the x. The origin if None.
        out: float64, shape (n, n), C-contiguous, overwritten. Allocated if None, of the kind of x[0].

    Returns:
        ``out``, exactly symmetric.

    Raises:
        TypeError: an array is of none of these types, or of another than x[0]; ``out`` is not float64.
        ValueError: a shape does not fit, ``out`` is not contiguous, read-only or overlaps an input.

    Cost, with b bytes an element: reads b * (n + 1) * d bytes; n * (n + 1) * d double operations; workspace
    of 2 KiB a vector.
    """
    n = len(x)
    if out is None:
        out = room(x[0] if n else None, (n, n), "float64")
    native.gram_f32(x, centre, _flat(out, n))
    return out


@overload
def quant_pair_sqdists(
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    n: int,
    codec: Codec,
    block: int,
    out: Matrix | None = None,
) -> Matrix: ...
@overload
def quant_pair_sqdists(
    codes: Sequence[Bytes],
    scales: Sequence[torch.Tensor],
    n: int,
    codec: Codec,
    block: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor: ...
def quant_pair_sqdists(
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    n: int,
    codec: Codec,
    block: int,
    out: Doubles | None = None,
) -> Doubles:
    """Squared distances of all pairs of m encoded vectors, from their codes; nothing is decoded.

    ``out[k, l]`` is for k < l what ``quant_sqdists`` says of own = k and the vector l, bit for bit. Levels
    are taken from the codes once for all pairs. Releases the GIL.

    Args:
        codes: m arrays of uint8, shape (quant_bytes(codec, n),); m at most ``MOST_PAIRED``.
        scales: m arrays of float32, shape (ceil(n / block),).
        n: elements.
        codec: as all were encoded: "int8", "int4" or "int2".
        block: as all were encoded, at most 65536.
        out: float64, shape (m, m), C-contiguous, overwritten. Allocated if None, of the kind of scales[0].

    Returns:
        ``out``, exactly symmetric, 0 on the diagonal.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, count, codec or ``block`` does not fit, or ``out`` is not contiguous, read-only
            or overlaps an input.

    Cost: reads m * (b / 8 * n + 4 * n / block) bytes for b bits; m (m + 1) / 2 products for each element.
    """
    m = len(codes)
    if out is None:
        out = room(scales[0] if m else None, (m, m), "float64")
    native.quant_pair_sqdists(codes, scales, n, codec, block, _flat(out, m))
    return out


def _flat(out: Doubles, n: int) -> Doubles:
    """The elements of an output of shape (n, n)."""
    if tuple(out.shape) != (n, n) or not _is_contiguous(out):
        strides = out.strides if isinstance(out, np.ndarray) else out.stride()
        raise ValueError(
            f"out must be a C-contiguous float64 array of shape ({n}, {n}), got shape {tuple(out.shape)} "
            f"and strides {strides}"
        )
    return out.reshape(-1)


def _is_contiguous(out: Doubles) -> bool:
    return out.flags.c_contiguous if isinstance(out, np.ndarray) else out.is_contiguous()


@overload
def squared_distances(gram_matrix: Matrix) -> Matrix: ...
@overload
def squared_distances(gram_matrix: torch.Tensor) -> torch.Tensor: ...
def squared_distances(gram_matrix: Doubles) -> Doubles:
    """Squared distances of all pairs from their Gram matrix, ``g_ii + g_jj - 2 g_ij``.

    Never negative, exactly symmetric, 0 on the diagonal. Pairs with a vector that has a NaN or an
    infinity are at distance infinity, and so is such a vector from itself.

    Args:
        gram_matrix: float64, shape (n, n), of ``gram``.

    Returns:
        A new matrix of the kind of ``gram_matrix``.
    """
    matrix = gram_matrix if isinstance(gram_matrix, np.ndarray) else gram_matrix.numpy()
    sizes = np.diagonal(matrix)
    out: Doubles = room(gram_matrix, matrix.shape, "float64")
    squared = out if isinstance(out, np.ndarray) else out.numpy()
    with np.errstate(invalid="ignore"):
        np.maximum((sizes[:, None] + sizes[None, :]) - 2.0 * matrix, 0.0, out=squared)
    squared[~np.isfinite(squared)] = np.inf
    return out


def clip_accumulate(
    x: Sequence[State],
    weights: Sequence[float],
    distances: Sequence[float],
    radii: Sequence[float],
    centre: State,
    out: State,
) -> int:
    """Add m clipped differences in one pass: ``out += sum_k w_k * min(1, r_k / d_k) * (x[k] - centre)``.

    The factor w_k * (r_k / d_k) is formed in double and rounded to float32 once; then, for k = 0,
    1, ... in order, difference, product and addition each round to float32. In float64 all of that is
    float64; vectors of 16 bits are widened, and the sum is rounded once. A vector whose distance
    is NaN or infinite is left out: nothing of it is read into the sum. Releases the GIL.

    Source: He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", 2022,
    arXiv:2202.01545 (centre and out are the own model); Karimireddy, He, Jaggi, "Learning from
    History for Byzantine Robust Optimization", ICML 2021, arXiv:2012.10333 (centered clipping).

    Args:
        x: m arrays of shape (d,), float32, float64, float16 or bfloat16.
        weights: m finite numbers.
        distances: m Euclidean distances of x[k] to the centre (not squared).
        radii: m radii, not negative; infinity clips nothing.
        centre: of the same type, shape (d,).
        out: of the same type, shape (d,), updated; may be exactly ``centre`` or one of the x, whose values
            before the call count.

    Returns:
        How many vectors were added.

    Raises:
        TypeError: an array is of none of these types, or of another than ``out``.
        ValueError: a shape, count or number does not fit, ``out`` is read-only or overlaps an input in
            part. ``out`` is unchanged then.

    Cost, with b bytes an element: reads b * (m + 2) * d bytes, writes b * d bytes.
    """
    return native.clip_accumulate_f32(x, weights, distances, radii, centre, out)
