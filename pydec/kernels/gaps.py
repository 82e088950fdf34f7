"""Strictly increasing indices as bit-packed gaps: about log2 of the mean gap plus 3 bits for each index."""

from __future__ import annotations

from pydec.kernels._arrays import Bytes, UInt32s
from pydec.kernels._library import native

GAPS_BAD_LENGTH = 1
"""A fault: a width above 32 bits, or another number of bytes than the widths ask for."""
GAPS_BAD_WIDTH = 2
"""A fault: a width larger than its gaps need, or bits after the last gap that are not 0."""
GAPS_BAD_INDEX = 4
"""A fault: an index of n or more."""


def gaps_bound(n: int, k: int) -> int:
    """The most bytes that k different indices below n take; no sequence of k takes more.

    Raises:
        ValueError: k is larger than n.
    """
    return native.gaps_bound(n, k)


def gaps_pack(indices: UInt32s, out: Bytes) -> int:
    """Pack indices; returns the number of bytes. Every sequence has one encoding. Releases the GIL.

    The gap of index j is ``indices[j] - indices[j - 1] - 1``, with -1 before the first. First comes a byte
    for each group of 128 gaps, the width in bits of its largest gap; then the groups. Gap i of a group is in
    32-bit lane i % 4, after gap i - 4, from the low bit up; every 32 bits of the four lanes are 16 bytes. A
    last group ends with the 16 bytes that hold its last gap; bits after that are 0. In this layout vector
    code neither shuffles nor looks at single gaps. It follows Lemire, Boytsov, "Decoding billions of integers
    per second through vectorization", Software: Practice and Experience 2015, arXiv:1209.2137, section 4
    (four lanes of binary packing).

    Args:
        indices: uint32, shape (k,), strictly increasing.
        out: uint8, at least ``gaps_bound(indices[-1] + 1, k)`` long.

    Raises:
        TypeError: an array has another dtype.
        ValueError: indices do not increase, ``out`` is too short or read-only, or arrays overlap.
    """
    return native.gaps_pack(indices, out)


def gaps_unpack(data: Bytes, n: int, indices: UInt32s) -> int:
    """Check and unpack what ``gaps_pack`` made of k indices below n. Releases the GIL.

    Args:
        data: uint8, all of the bytes.
        n: at most 2^32.
        indices: uint32, shape (k,), overwritten.

    Returns:
        0, or the faults: any of GAPS_BAD_LENGTH, GAPS_BAD_WIDTH, GAPS_BAD_INDEX; indices are unchanged then.

    Raises:
        TypeError: an array has another dtype.
        ValueError: arrays overlap or indices are read-only.
    """
    return native.gaps_unpack(data, n, indices)
