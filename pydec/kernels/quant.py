"""Blockwise quantisation to 8, 4, 2 and 1 bits, to nearest or at random, with error feedback in one pass.

Scales are float32 whatever the type of the vectors. Vectors of 16 bits are widened, and what is written to
them is rounded once. Of float64, what is encoded is rounded to float32 first, and what is decoded is a
float32 number; sums with residuals and weights are taken in float64. Both go through the caches in pieces of
whole blocks, which the calling thread keeps room for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from pydec.kernels._arrays import Bytes, Doubles, S, State, Vector, room
from pydec.kernels._library import native

if TYPE_CHECKING:
    import torch

Codec = Literal["int8", "int4", "int2", "sign", "e4m3", "e5m2"]

BLOCK = 256
"""Elements that share a scale, unless the caller says otherwise."""
CODE_BITS: dict[Codec, int] = {"int8": 8, "int4": 4, "int2": 2, "sign": 1, "e4m3": 8, "e5m2": 8}
"""Bits of a code."""
TOP_LEVEL: dict[Codec, float] = {"int8": 127, "int4": 7, "int2": 1, "sign": 1, "e4m3": 448, "e5m2": 57344}
"""Largest level: what the largest magnitude of a block becomes in units of its scale."""

INTEGER_CODECS: tuple[Codec, ...] = ("int8", "int4", "int2")
"""Codecs whose levels are integers."""

BAD_SCALE, BAD_CODE, BAD_PADDING = 1, 2, 4
"""Faults that ``quant_check`` adds up."""


def quant_group(codec: Codec) -> int:
    """Elements whose codes share 16 bytes; blocks are multiples of it."""
    return 128 // CODE_BITS[codec]


def quant_blocks(n: int, block: int = BLOCK) -> int:
    """Scales of n elements: ``ceil(n / block)``; the last block may be short."""
    return -(-n // block)


def quant_bytes(codec: Codec, n: int) -> int:
    """Bytes of n codes: n of 8 bits; narrower ones fill whole groups of 16 bytes."""
    return n if CODE_BITS[codec] == 8 else -(-n // quant_group(codec)) * 16


def quant_encode(
    x: State,
    codes: Bytes,
    scales: Vector,
    codec: Codec,
    block: int,
    *,
    residual: State | None = None,
    key: int | None = None,
    first: int = 0,
) -> int:
    """Quantise a = x, or a = x + residual: ``code`` is nearest to ``a / scale`` among the codec's levels.

    The scale of a block is ``max|a| / TOP_LEVEL``, or for "sign" ``mean|a|`` (summed in float32 in 16
    lanes); ``a / scale`` is ``a * (1 / scale)`` in float32. Ties go to even. With a residual, it becomes
    ``a - scale * level``, rounded after the product and after the difference: what was not sent. All of that
    happens while a block is in the cache, in one pass over memory. Same bits on every CPU. Releases the GIL.

    With a key (integers only), ``a / scale`` is rounded up with a probability equal to its fraction, to
    2^-15, so that the expected code is ``a / scale``. Every element has 15 random bits of its own, a function
    of the key and of its place ``first + i`` alone.

    Codes of 8 bits are bytes in order. Narrower ones lie in groups of 16 bytes, of ``quant_group`` elements:
    byte j holds, from the low bits up, the codes of elements j, j + 16, j + 32, ... of its group.
    Integers are two's complement; codes past the last element are 0. A block with a NaN or an infinity, or
    whose scale would decode to infinity, gets scale NaN, codes 0 and the residual a.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,).
        codes: uint8, shape (quant_bytes(codec, n),), overwritten.
        scales: float32, shape (ceil(n / block),), overwritten.
        codec: what a code is.
        block: elements that share a scale, a multiple of ``quant_group(codec)``.
        residual: of the type of x, shape (n,), updated; None for no error feedback.
        key: 64 bits from which random numbers are drawn; None to round to nearest.
        first: place of x[0] in the vector that the key belongs to, a multiple of 16.

    Returns:
        The number of blocks that got scale NaN; refuse to send if it is not 0.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, ``block`` or ``first`` does not fit, arrays overlap, an output is read-only, or
            the codec does not round at random.

    Cost, of float32: reads 4 * n bytes, writes b / 8 * n + 4 * n / block bytes for b bits; with a residual
    reads 4 * n and writes 4 * n bytes more.
    """
    return native.quant_encode_f32(x, residual, codes, scales, codec, block, key, first)


def quant_encode_difference(
    x: State,
    y: State,
    codes: Bytes,
    scales: Vector,
    codec: Codec,
    block: int,
    *,
    key: int | None = None,
    first: int = 0,
) -> int:
    """Quantise a = x - y, rounded once, as ``quant_encode`` does, in one pass that writes nothing else.

    Args:
        x: float32, float64, float16 or bfloat16, shape (n,).
        y: of the type of x, shape (n,).
        codes, scales, codec, block, key, first: as for ``quant_encode``.

    Returns:
        The number of blocks that got scale NaN; refuse to send if it is not 0.

    Raises:
        TypeError, ValueError: as ``quant_encode``.

    Cost, of float32: reads 8 * n bytes, writes b / 8 * n + 4 * n / block bytes for b bits.
    """
    return native.quant_encode_difference_f32(x, y, codes, scales, codec, block, key, first)


def quant_decode(codes: Bytes, scales: Vector, out: S, codec: Codec, block: int) -> S:
    """Decode: ``out[i] = scales[i // block] * level[i]``, rounded once. Releases the GIL.

    Args:
        codes: uint8, shape (quant_bytes(codec, n),).
        scales: float32, shape (ceil(n / block),).
        out: float32, float64, float16 or bfloat16, shape (n,), overwritten.
        codec: as it was encoded.
        block: as it was encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape or ``block`` does not fit, arrays overlap, or ``out`` is read-only.

    Cost, of float32: reads b / 8 * n + 4 * n / block bytes, writes 4 * n bytes.
    """
    native.quant_decode_f32(codes, scales, out, codec, block)
    return out


def quant_accumulate(
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    weights: Sequence[float],
    out: S,
    codec: Codec,
    block: int,
) -> S:
    """Add m weighted encoded vectors to ``out`` in one pass over it.

    For k = 0, 1, ... in order, ``out[i] += weights[k] * (scales[k][i // block] * level[k][i])``, rounded to
    float32 after every product and every addition: the bits of decoding each and adding it. Releases the GIL.

    Args:
        codes: m uint8 arrays of shape (quant_bytes(codec, n),).
        scales: m float32 arrays of shape (ceil(n / block),).
        weights: m finite numbers, rounded to float32 unless ``out`` is float64.
        out: float32, float64, float16 or bfloat16, shape (n,), updated.
        codec: as they were encoded.
        block: as they were encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, count, weight or ``block`` does not fit, an input overlaps ``out``, or
            ``out`` is read-only. ``out`` is unchanged then.

    Cost, of float32: reads (4 + m b / 8) * n bytes, writes 4 * n bytes.
    """
    native.quant_accumulate_f32(codes, scales, weights, out, codec, block)
    return out


def quant_sqdist(codes: Bytes, scales: Vector, x: State, codec: Codec, block: int) -> float:
    """Squared distance of an encoded vector and another, ``sum_i (scale * level[i] - x[i])^2``.

    The bits of ``sqdist(decoded, x)``, in one pass that writes nothing. Releases the GIL.

    Args:
        codes: uint8, shape (quant_bytes(codec, n),).
        scales: float32, shape (ceil(n / block),).
        x: float32, float64, float16 or bfloat16, shape (n,).
        codec: as it was encoded.
        block: as it was encoded.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape or ``block`` does not fit.

    Cost, of float32: reads (4 + b / 8) * n + 4 * n / block bytes.
    """
    return native.quant_sqdist_f32(codes, scales, x, codec, block)


@overload
def quant_sqdists(
    own_codes: Bytes,
    own_scales: NDArray[np.float32],
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    n: int,
    codec: Codec,
    block: int,
    out: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]: ...
@overload
def quant_sqdists(
    own_codes: Bytes,
    own_scales: torch.Tensor,
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    n: int,
    codec: Codec,
    block: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor: ...
def quant_sqdists(
    own_codes: Bytes,
    own_scales: Vector,
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    n: int,
    codec: Codec,
    block: int,
    out: Doubles | None = None,
) -> Doubles:
    """Squared distances of m encoded vectors to one, from their codes; nothing is decoded.

    ``out[k] = sum_i (own_scale * own_level[i] - scale_k * level_k[i])^2``, where products and differences are
    not rounded as decoding rounds them: sums of products of levels are integers, and their sum over a
    block is off by a few roundings of a double, relative to itself where codes or scales are equal. Blocks,
    and chunks of whole blocks of about 2^16 elements, are added in order: same bits on every CPU and number
    of threads. A NaN or an infinity among the scales of a message makes its number NaN or infinite and no
    other. Releases the GIL.

    Args:
        own_codes: uint8, shape (quant_bytes(codec, n),).
        own_scales: float32, shape (ceil(n / block),).
        codes: m arrays like own_codes.
        scales: m arrays like own_scales.
        n: elements.
        codec: as all were encoded: "int8", "int4" or "int2".
        block: as all were encoded, at most 65536.
        out: float64, shape (m,), overwritten. Allocated if None, of the kind of own_scales.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape, count, codec or ``block`` does not fit, or ``out`` is read-only or overlaps an
            input.

    Cost: reads (m + 1) * (b / 8 * n + 4 * n / block) bytes for b bits, the own part once for every 4
    messages.
    """
    if out is None:
        out = room(own_scales, len(codes), "float64")
    native.quant_sqdists(own_codes, own_scales, codes, scales, n, codec, block, out)
    return out


def quant_check(codes: Bytes, scales: Vector, n: int, codec: Codec, block: int) -> int:
    """What is wrong with an encoded vector: the sum of its faults, 0 if an encoder can have made it.

    ``BAD_SCALE``: a scale is negative, NaN, infinite, or so large that a level decodes to infinity.
    ``BAD_CODE``: a code that no encoder makes: the lowest integer, a NaN or an infinity of fp8.
    ``BAD_PADDING``: a code past the last element is not 0. Releases the GIL.

    Args:
        codes: uint8, shape (quant_bytes(codec, n),).
        scales: float32, shape (ceil(n / block),).
        n: elements.
        codec: as it was encoded.
        block: as it was encoded.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a shape or ``block`` does not fit.

    Cost: reads b / 8 * n + 4 * n / block bytes.
    """
    return native.quant_check(codes, scales, n, codec, block)
