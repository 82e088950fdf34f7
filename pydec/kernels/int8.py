"""Blockwise 8-bit quantisation: one float32 scale for every block of elements."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import Int8s, V, Vector
from pydec.kernels._library import native

BLOCK = 256
"""Elements that share a scale, unless the caller says otherwise."""


def int8_blocks(n: int, block: int = BLOCK) -> int:
    """Number of scales of n elements: ``ceil(n / block)``; the last block may be short."""
    return -(-n // block)


def int8_encode(x: Vector, codes: Int8s, scales: Vector, block: int = BLOCK) -> int:
    """Quantise: ``scale = max|x| / 127`` in each block, ``code = rint(x * (1 / scale))``, ties to even.

    The error of an element is at most half its block's scale (and 1e-5 of it for rounding). An
    all-zero block has scale 0 and codes 0; so does one whose scale rounds to zero (magnitudes up to
    8.8e-44). A block with a NaN or an infinity gets scale NaN and codes 0, so that it cannot be
    mistaken for data. Same bits on every CPU and GPU. Releases the GIL.

    Args:
        x: float32, shape (n,).
        codes: int8, shape (n,), overwritten.
        scales: float32, shape (ceil(n / block),), overwritten.
        block: elements that share a scale, a multiple of 16.

    Returns:
        The number of blocks that hold a NaN or an infinity; refuse to send if it is not 0.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape or ``block`` does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 * n bytes, writes n + 4 * n / block bytes.
    """
    return native.int8_encode_f32(x, codes, scales, block)


def int8_decode(codes: Int8s, scales: Vector, out: V, block: int = BLOCK) -> V:
    """Decode: ``out[i] = scales[i // block] * codes[i]``, rounded once. Releases the GIL.

    Args:
        codes: int8, shape (n,).
        scales: float32, shape (ceil(n / block),).
        out: float32, shape (n,), overwritten.
        block: as it was encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape or ``block`` does not fit, arrays overlap, or ``out`` is read-only.

    Cost: reads n + 4 * n / block bytes, writes 4 * n bytes.
    """
    native.int8_decode_f32(codes, scales, out, block)
    return out


def int8_accumulate(
    codes: Sequence[Int8s],
    scales: Sequence[Vector],
    weights: Sequence[float],
    out: V,
    block: int = BLOCK,
) -> V:
    """Add m weighted encoded vectors to ``out`` in one pass over it.

    For k = 0, 1, ... in order, ``out[i] += weights[k] * (scales[k][i // block] * codes[k][i])``,
    rounded to float32 after every product and every addition: the bits of m calls with one vector
    each, and of decoding each and adding it. Releases the GIL.

    Args:
        codes: m int8 arrays of shape (n,).
        scales: m float32 arrays of shape (ceil(n / block),).
        weights: m finite numbers, rounded to float32.
        out: float32, shape (n,), updated.
        block: as they were encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, count, weight or ``block`` does not fit, an input overlaps ``out``, or
            ``out`` is read-only. ``out`` is unchanged then.

    Cost: reads (4 + m) * n bytes, writes 4 * n bytes.
    """
    native.int8_accumulate_f32(codes, scales, weights, out, block)
    return out
