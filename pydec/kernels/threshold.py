"""Selection of what reaches a threshold that a sample suggests, with error feedback."""

from __future__ import annotations

from pydec.kernels._arrays import Bytes, Vector
from pydec.kernels._library import native


def threshold_select(
    x: Vector, residual: Vector | None, k: int, least: int, entries: Bytes
) -> tuple[int, int]:
    """Select about k entries in one pass: those that reach the magnitude of rank k / n in a sample.

    With ``a = x`` (residual None) or ``a = x + residual``. The sample is one element of a in 64, at most
    65,536 (and all of a for n below 16,384), at fixed places, so equal vectors give equal
    selections. Zeros are not selected. If fewer than ``least`` reach the threshold, the ``least``
    entries of largest magnitude are selected exactly, ties to the lowest index; if more than fit in
    ``entries``, as many as fit. Then about a dozen more passes are made. The residual becomes a with the
    selected entries set to 0. Releases the GIL; the sample's memory belongs to the calling thread.

    Args:
        x: float32, shape (n,), n < 2^32.
        residual: float32, shape (n,), updated, or None.
        k: about how many to select, least..m.
        least: how many to select at the least, from 1 on (0 if n is 0).
        entries: uint8, shape (8 m,), m <= n. For c selected entries the first 4 c bytes are overwritten
            with their indices as uint32, ascending, the next 4 c with the float32 entries of a.

    Returns:
        How many are selected, and the number of NaN and infinite entries of a. If that is not 0, refuse
        to send: the residual has been updated all the same, and is spoilt where a is not finite.

    Raises:
        TypeError: an array has another dtype.
        ValueError: k, least or a shape does not fit, arrays overlap, or an output is read-only.

    Cost: reads 4 n bytes (8 n with a residual, and writes 4 n), writes 8 bytes for each selected entry.
    """
    return native.threshold_select_f32(x, residual, k, least, entries)
