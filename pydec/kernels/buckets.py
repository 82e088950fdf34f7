"""One call for many vectors, such as the parameters of a model: the kernel of each, the overhead of one call.

Everything is checked before anything is written. A call costs some hundredths of a microsecond a vector more
than its loops.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import Bytes, S, State, Vector
from pydec.kernels._library import native
from pydec.kernels.quant import Codec


def mix_many(x: Sequence[Sequence[State]], weights: Sequence[float], out: Sequence[S]) -> Sequence[S]:
    """``mix`` of every bucket: ``out[b] = sum_k weights[k] * x[k][b]``, with its bits. Releases the GIL.

    Args:
        x: K >= 1 sequences, such as the parameters of K peers, of B vectors each, all of a type that ``mix``
            takes.
        weights: K finite numbers, as for ``mix``.
        out: B vectors of the same type, overwritten; ``out[b]`` as long as every ``x[k][b]``. It may be
            exactly one of these, and must not overlap any other vector.

    Returns:
        ``out``.

    Raises:
        TypeError: an array is of no such type, or of another than ``out[0]``.
        ValueError: lengths or counts disagree, an array is not contiguous, an output is read-only or
            overlaps another vector, K = 0, or a weight is not finite. Nothing is written then.

    Cost: that of ``mix`` for all elements.
    """
    native.mix_many_f32(x, weights, out)
    return out


def quant_encode_many(
    x: Sequence[State],
    codes: Sequence[Bytes],
    scales: Sequence[Vector],
    codec: Codec,
    block: int,
    *,
    residual: Sequence[State] | None = None,
    key: int | None = None,
    first: int = 0,
) -> int:
    """``quant_encode`` of every bucket, with its bits. Releases the GIL.

    Args:
        x: B vectors of one type that ``quant_encode`` takes.
        codes: B uint8 vectors, overwritten, each as ``quant_encode`` wants them.
        scales: B float32 vectors, overwritten.
        codec: what a code is.
        block: elements that share a scale.
        residual: B vectors of the same type, updated; None for no error feedback.
        key: 64 bits from which random numbers are drawn; None to round to nearest.
        first: place of ``x[0][0]``, a multiple of 16. The next bucket starts at the next multiple of 16
            after the last element, so that no two elements share random bits.

    Returns:
        The number of blocks, of all buckets, that got scale NaN; refuse to send if it is not 0.

    Raises:
        TypeError: an array has another dtype.
        ValueError: as ``quant_encode``, or counts disagree, or a vector that is written overlaps another.
            Nothing is written then.

    Cost: that of ``quant_encode`` for all elements.
    """
    return native.quant_encode_many_f32(x, residual, codes, scales, codec, block, key, first)


def quant_accumulate_many(
    codes: Sequence[Sequence[Bytes]],
    scales: Sequence[Sequence[Vector]],
    weights: Sequence[float],
    out: Sequence[S],
    codec: Codec,
    block: int,
) -> Sequence[S]:
    """``quant_accumulate`` of every bucket, with its bits: decode m messages and add them. Releases the GIL.

    Args:
        codes: m sequences, one for each message, of B uint8 vectors.
        scales: m sequences of B float32 vectors.
        weights: m finite numbers, as for ``quant_accumulate``.
        out: B vectors of one type that ``quant_accumulate`` takes, updated.
        codec: as they were encoded.
        block: as they were encoded.

    Returns:
        ``out``.

    Raises:
        TypeError: an array has another dtype.
        ValueError: as ``quant_accumulate``, or counts disagree, or a vector of ``out`` overlaps another.
            Nothing is written then.

    Cost: that of ``quant_accumulate`` for all elements.
    """
    native.quant_accumulate_many_f32(codes, scales, weights, out, codec, block)
    return out
