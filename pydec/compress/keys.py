"""Keys of random numbers: one 64-bit number for who draws, when and what for."""

from __future__ import annotations

from functools import lru_cache

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
    return draw_more(draw_begin(len(parts)), *parts)


def draw_begin(count: int, *parts: int) -> int:
    """What ``draw_more`` goes on from to the key of ``count`` parts, which begin with these.

    For many keys with the same beginning: ``draw_more(draw_begin(4, a, b), c, d) == draw_key(a, b, c, d)``.
    """
    return draw_more(_mix(count), *parts)


def draw_more(state: int, *parts: int) -> int:
    """The next parts; the key, after the last one."""
    for part in parts:
        state = _mix((state + _GOLDEN) ^ _part(part))
    return state


def _mix(z: int) -> int:
    z &= _MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


_part = lru_cache(maxsize=256)(_mix)  # rounds and buckets come again and again
