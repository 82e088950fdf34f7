"""How many of n a share is: what the sparse compressors have in common."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

from pydec.errors import ConfigError


def check_share(fraction: float, k: int | None, default: float) -> None:
    """Raise ConfigError unless fraction is in (0, 1] and k, if given, is at least 1 and stands alone."""
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"fraction must be in (0, 1], got {fraction}")
    if k is not None and k < 1:
        raise ConfigError(f"k must be at least 1, got {k}")
    if k is not None and fraction != default:
        raise ConfigError(f"fraction={fraction} and k={k} exclude each other; give one of them")


@lru_cache(maxsize=256)
def _exact(fraction: float) -> Fraction:
    return Fraction(repr(float(fraction)))


def share_of(n: int, fraction: float, k: int | None = None) -> int:
    """min(n, k), or ceil(fraction * n) with the fraction read as the decimal number that it prints as."""
    return min(n, k if k is not None else math.ceil(_exact(fraction) * n))
