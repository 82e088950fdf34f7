"""Integers that come out the same on every machine: mixing 64 bits, and logarithms without floats."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]

_TABLE_BITS = 10
LOG_ONE = 1 << 32
"""What ``minus_log2`` counts in: this is 1."""


def mix(x: Words) -> Words:
    """Spread the bits of each word over all of it; a permutation of the 64-bit words.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014; the constants
    are Stafford's variant 13, as in SplitMix64.
    """
    x = x ^ (x >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def minus_log2(x: Words) -> Words:
    """-log2((x + 1) / 2^64) in units of 1 / ``LOG_ONE``, to one in ten million, rounded the same everywhere.

    A table of the logarithm at 1,025 points, and a line between them.
    """
    table = _logarithms()
    exponent = _exponent(x)
    mantissa = x << (np.uint64(63) - exponent)  # from 2^63
    fraction = mantissa & np.uint64((1 << 63) - 1)
    at = (fraction >> np.uint64(63 - _TABLE_BITS)).astype(np.intp)
    rest = (fraction >> np.uint64(63 - _TABLE_BITS - 21)) & np.uint64((1 << 21) - 1)
    low, high = table[at], table[at + 1]
    log = low + (((high - low) * rest) >> np.uint64(21)) + exponent * np.uint64(LOG_ONE)
    found: Words = np.uint64(64 * LOG_ONE) - np.minimum(log, np.uint64(64 * LOG_ONE - 1))
    return found


def _exponent(x: Words) -> Words:
    """The number of the highest bit that is set; 0 for 0."""
    found = np.zeros_like(x)
    for bits in (32, 16, 8, 4, 2, 1):
        above = (x >> np.uint64(bits)) != 0
        found += above * np.uint64(bits)
        x = np.where(above, x >> np.uint64(bits), x)
    return found


@cache
def _logarithms() -> Words:
    """log2(1 + i / 1024) for i = 0 to 1024, by squaring: each square gives one more bit."""
    found = []
    for i in range(1 << _TABLE_BITS):
        value, log = (1 << 62) + (i << (62 - _TABLE_BITS)), 0
        for _ in range(33):
            value = (value * value) >> 62
            log <<= 1
            if value >> 63:
                value >>= 1
                log |= 1
        found.append((log + 1) >> 1)
    return np.array([*found, LOG_ONE], np.uint64)
