"""Entries at places that a 64-bit key alone decides, so that no index is ever sent."""

from __future__ import annotations

from collections.abc import Sequence

from pydec.kernels._arrays import V, Vector
from pydec.kernels._library import native


def randk_key(x: Vector, residual: Vector | None, seed: int) -> tuple[int, int]:
    """A key made of ``seed`` and all bits of ``a = x`` (or ``a = x + residual``), in one pass.

    Equal vectors and seeds have equal keys on every CPU; unequal ones have keys that look unrelated.
    It is no cryptographic hash. The residual becomes a. Releases the GIL.

    Args:
        x: float32, shape (n,).
        residual: float32, shape (n,), updated, or None.
        seed: in 0..2^64 - 1.

    Returns:
        The key, in 0..2^64 - 1, and the number of NaN and infinite entries of a.

    Raises:
        TypeError: an array is not float32, or the seed is outside its range.
        ValueError: shapes disagree, arrays overlap, or the residual is read-only.

    Cost: reads 4 n bytes (8 n with a residual, and writes 4 n).
    """
    return native.randk_key_f32(x, residual, seed)


def randk_count(n: int, chunk: int, k: int, key: int) -> int:
    """Elements that ``key`` chooses of n: k chunks, but for what the last chunk lacks if it is among them.

    Raises:
        ValueError: chunk is below 1 or k is above the number of chunks.
    """
    return native.randk_count(n, chunk, k, key)


def randk_gather(x: Vector, chunk: int, k: int, key: int, scaled: bool, values: V) -> V:
    """Write the chosen elements of x to ``values`` in ascending order of their indices; returns it.

    The ceil(n / chunk) chunks of x are cut into k runs, the strata, whose sizes s differ by at most 1,
    the longer ones first. Stratum j chooses its chunk ``(s * mix(key + (j + 1) * phi)) >> 64`` by the
    SplitMix64 generator; so every chunk is chosen with probability 1 / s over the keys, and places
    need neither sorting nor sending.

    Args:
        x: float32, shape (n,).
        chunk: elements that are chosen together, at least 1; the last chunk may be short.
        k: chunks to choose, 0..ceil(n / chunk).
        key: in 0..2^64 - 1.
        scaled: multiply by s, which makes the scatter's expectation over the keys equal to x.
        values: float32, shape (``randk_count(n, chunk, k, key)``,), overwritten.

    Raises:
        TypeError: an array is not float32.
        ValueError: chunk, k or a shape does not fit, arrays overlap, or ``values`` is read-only.

    Cost: touches the lines of the chosen elements and writes these.
    """
    native.randk_gather_f32(x, chunk, k, key, scaled, values)
    return values


def randk_scatter(values: Vector, chunk: int, k: int, key: int, weight: float, out: V) -> V:
    """``out[i] += weight * value`` at the places that ``randk_gather`` chooses; returns ``out``.

    Rounds to float32 after the product and after the addition. Releases the GIL.

    Args:
        values: float32, shape (``randk_count(n, chunk, k, key)``,).
        chunk: as for ``randk_gather``.
        k: as for ``randk_gather``.
        key: as for ``randk_gather``.
        weight: a finite number, rounded to float32.
        out: float32, shape (n,), updated.

    Raises:
        TypeError: an array is not float32.
        ValueError: chunk, k, the weight or a shape does not fit, arrays overlap, or ``out`` is read-only.

    Cost: reads the values and touches the lines of the chosen elements.
    """
    native.randk_scatter_f32(values, chunk, k, key, weight, out)
    return out


def randk_accumulate(
    values: Sequence[Vector],
    chunks: Sequence[int],
    counts: Sequence[int],
    keys: Sequence[int],
    weights: Sequence[float],
    out: V,
) -> V:
    """Add m messages in one sweep over ``out``, in order: the bits of m calls of ``randk_scatter``.

    Returns ``out``. Releases the GIL; memory for places, half a KiB a message, belongs to the calling thread.

    Args:
        values: m float32 arrays of shape (``randk_count(n, chunk, k, key)``,).
        chunks: the chunk of each.
        counts: the number of chunks of each.
        keys: the key of each.
        weights: m finite numbers, rounded to float32.
        out: float32, shape (n,), updated.

    Raises:
        TypeError: an array is not float32.
        ValueError: a chunk, count, weight or shape does not fit, an input overlaps ``out``, or ``out`` is
            read-only; ``out`` is unchanged.

    Cost: reads the values and touches the lines of the chosen elements, once for all messages.
    """
    native.randk_accumulate_f32(values, chunks, counts, keys, weights, out)
    return out
