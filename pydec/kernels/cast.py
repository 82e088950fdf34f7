"""bfloat16 and float16: half the bytes, every element by itself, rounded to nearest even."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydec.kernels._arrays import Halves, V, Vector
from pydec.kernels._library import native

Half = Literal["bf16", "fp16"]


def cast_encode(x: Vector, codes: Halves, half: Half, *, residual: Vector | None = None) -> int:
    """Round a = x, or a = x + residual, to 16 bits, ties to even.

    Magnitudes that round to more than the largest finite number become infinity; NaN stays NaN. With a
    residual, it becomes ``a - value of the code``, exactly, and a where the code is infinite or NaN. Same
    bits on every CPU and as a conversion in hardware. Releases the GIL.

    Args:
        x: float32, shape (n,).
        codes: uint16, shape (n,), overwritten; or bfloat16 or float16, as ``half`` says.
        half: bf16 (8 bits of exponent) or fp16 (5 bits of exponent, largest 65504).
        residual: float32, shape (n,), updated; None for no error feedback.

    Returns:
        The number of codes that are infinite or NaN; refuse to send if it is not 0.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 * n bytes, writes 2 * n bytes; with a residual reads and writes 4 * n bytes more each.
    """
    return native.cast_encode_f32(x, residual, codes, half)


def cast_decode(codes: Halves, out: V, half: Half) -> V:
    """Values of 16-bit codes, exactly; infinity and NaN too. Releases the GIL.

    Args:
        codes: shape (n,), as for ``cast_encode``.
        out: float32, shape (n,), overwritten.
        half: as they were encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape does not fit, arrays overlap, or ``out`` is read-only.

    Cost: reads 2 * n bytes, writes 4 * n bytes.
    """
    native.cast_decode_f32(codes, out, half)
    return out


def cast_accumulate(codes: Sequence[Halves], weights: Sequence[float], out: V, half: Half) -> V:
    """Add m weighted encoded vectors to ``out`` in one pass over it.

    For k = 0, 1, ... in order, ``out[i] += weights[k] * value(codes[k][i])``, rounded to float32 after every
    product and every addition. Releases the GIL.

    Args:
        codes: m arrays of shape (n,), as for ``cast_encode``.
        weights: m finite numbers, rounded to float32.
        out: float32, shape (n,), updated.
        half: as they were encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, count or weight does not fit, an input overlaps ``out``, or ``out`` is read-only.
            ``out`` is unchanged then.

    Cost: reads (4 + 2 * m) * n bytes, writes 4 * n bytes.
    """
    native.cast_accumulate_f32(codes, weights, out, half)
    return out


def cast_count_nonfinite(codes: Halves, half: Half) -> int:
    """Number of codes that are infinite or NaN. Releases the GIL.

    Raises:
        TypeError: the array has another dtype.
    """
    return native.cast_count_nonfinite(codes, half)
