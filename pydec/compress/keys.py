"""Keys of random numbers: one 64-bit number for who draws, when and what for."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def draw_key(*parts: int) -> int:
    """A key in 0..2^64 - 1 from integers such as (seed, peer, round, bucket).

    Other parts, or the same in another order or number, give an unrelated key. Each part goes through the
    64-bit mixer of Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014
    (Stafford's variant 13) with what came before.

    Args:
        parts: integers; their low 64 bits count.
    """
    state = _mix(len(parts))
    for part in parts:
        state = _mix((state + _GOLDEN) ^ _mix(part))
    return state


def _mix(z: int) -> int:
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)
