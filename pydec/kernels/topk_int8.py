"""The largest entries with 8-bit values and packed gaps, with error feedback, and their weighted sums."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import Bytes, Vector
from pydec.kernels._library import native

TOPK_BAD_SCALE = 8
"""A fault: a scale that is negative, not finite, or decodes to infinity."""
TOPK_BAD_CODE = 16
"""A fault: codes that no encoder makes: -128, or without the 127 or -127 that their scale says."""


def topk_int8_bound(n: int, k: int, block: int) -> int:
    """The most bytes that a message of k of n entries takes.

    Raises:
        ValueError: k is larger than n, or the block is no positive multiple of 16.
    """
    return native.topk_int8_bound(n, k, block)


def topk_int8_encode(
    x: Vector, residual: Vector | None, k: int, block: int, body: Bytes
) -> tuple[int, int, int]:
    """Select the k largest magnitudes exactly and write them as codes, scales and packed gaps.

    With ``a = x`` (residual None) or ``a = x + residual``; the entries are those of ``topk_select``. Their
    values are quantised in blocks: scale = max|a| / 127, code = rint(a * (1 / scale)), ties to even. The
    residual becomes a, less scale * code at the places that were selected, in the same pass. The message is
    ceil(k / block) float32 scales, k int8 codes, and the bytes of ``gaps_pack``. Releases the GIL; memory for
    candidates belongs to the calling thread and is kept.

    Args:
        x: float32, shape (n,), n < 2^32.
        residual: float32, shape (n,), updated, or None.
        k: entries to select, 0 <= k <= n.
        block: entries that share a scale, a positive multiple of 16.
        body: uint8, at least ``topk_int8_bound(n, k, block)`` long, overwritten.

    Returns:
        The message's length, the number of NaN and infinite entries of a, and the number of blocks whose
        scale would decode to infinity. If one of the latter is not 0, there is no message: refuse to send.
        The residual is a then.

    Raises:
        TypeError: an array has another dtype.
        ValueError: k, block or a shape does not fit, arrays overlap, or an output is read-only; nothing has
            been written then.

    Cost: reads 4 n bytes (8 n with a residual, and writes 4 n), writes about 2.3 bytes for each entry.
    """
    return native.topk_int8_encode_f32(x, residual, k, block, body)


def topk_int8_decode(body: Bytes, k: int, block: int, out: Vector) -> int:
    """Check a message, then write zeros, and scale * code at its places. Releases the GIL.

    Args:
        body: uint8, all bytes of the message.
        k: its number of entries, 0 <= k <= n.
        block: entries that share a scale.
        out: float32, shape (n,), n < 2^32, overwritten.

    Returns:
        0, or the faults: any of GAPS_BAD_LENGTH, GAPS_BAD_WIDTH, GAPS_BAD_INDEX, TOPK_BAD_SCALE and
        TOPK_BAD_CODE. ``out`` is unchanged then.

    Raises:
        TypeError: an array has another dtype.
        ValueError: k or block does not fit, arrays overlap, or ``out`` is read-only.

    Cost: writes 4 n bytes, reads about 2.3 bytes for each entry, twice. Memory, 16 bytes for every 128
    entries, belongs to the calling thread and is kept; it is allocated only for a message of k bytes or more.
    """
    return native.topk_int8_decode_f32(body, k, block, out)


def topk_int8_accumulate(
    bodies: Sequence[Bytes],
    counts: Sequence[int],
    blocks: Sequence[int],
    weights: Sequence[float],
    out: Vector,
) -> tuple[int, int]:
    """Check m messages, then add them in one sweep: in order, ``out[i] += weight * (scale * code)``.

    Rounds to float32 after every product and every addition: the bits of decoding each message and adding its
    entries. Releases the GIL.

    Args:
        bodies: m uint8 arrays, as for ``topk_int8_decode``.
        counts: the number of entries of each.
        blocks: the block of each.
        weights: m finite numbers, rounded to float32.
        out: float32, shape (n,), n < 2^32, updated.

    Returns:
        m and 0, or the first message with faults and the faults; ``out`` is unchanged then.

    Raises:
        TypeError: an array has another dtype.
        ValueError: a count, block or weight does not fit, an input overlaps ``out``, or ``out`` is read-only;
            ``out`` is unchanged.

    Cost: reads about 2.3 bytes for each entry, twice, and touches the lines of ``out`` that have entries,
    once for all messages.
    """
    return native.topk_int8_accumulate_f32(bodies, counts, blocks, weights, out)
