"""Random draws that every rank makes alike: functions of (seed, round) in integers only.

numpy.random does not promise the same permutation in every version, and logarithms differ in the last
bit between machines; SplitMix64 of a hash is the same everywhere.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError

_SEED_BYTES = 32  # a block hash is a seed, too
_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1
_TABLE_SIZES = 4096  # up to here a permutation is sorted, exactly uniform; a table of one takes 0.2 ms
_FEISTEL_ROUNDS = 6  # four are a pseudo-random permutation in theory (Luby, Rackoff 1988); two for safety


def check_seed(seed: int) -> int:
    """The seed, if it is one; ConfigError otherwise."""
    if not 0 <= seed < 1 << (8 * _SEED_BYTES):
        raise ConfigError(f"seed must be in [0, 2^{8 * _SEED_BYTES}), got {seed}")
    return int(seed)


def draw_key(purpose: bytes, seed: int, number: int = 0) -> int:
    """64-bit key of one purpose (at most 16 bytes), seed and round; unrelated to all others."""
    text = seed.to_bytes(_SEED_BYTES, "little") + number.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, person=purpose).digest(), "little")


def mix64(z: int) -> int:
    """SplitMix64's finaliser, a bijection of 64 bits.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, figure 16.
    """
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def random_words(key: int, n: int, start: int = 0) -> NDArray[np.uint64]:
    """The words number ``start`` to ``start + n`` of a key's stream, shape (n,); no two are equal."""
    z = np.arange(start + 1, start + n + 1, dtype=np.uint64)
    z *= np.uint64(_GAMMA)
    z += np.uint64(key)
    return _mix_array(z)


def _mix_array(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """``mix64`` of every element, in place."""
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def shuffled(key: int, n: int) -> NDArray[np.int64]:
    """A random order of [0, n), each equally likely: sorted by distinct random words."""
    return np.argsort(random_words(key, n), kind="stable")


class Draws:
    """A key's stream, number by number; the same words as ``random_words``."""

    def __init__(self, key: int) -> None:
        self._state = key

    def below(self, bound: int) -> int:
        """An integer in [0, bound), uniform up to bound / 2^64."""
        self._state = (self._state + _GAMMA) & _MASK
        return (mix64(self._state) * bound) >> 64

    def sample(self, population: int, k: int) -> list[int]:
        """k different integers of [0, population), increasing; every set equally likely.

        Source: Floyd, in Bentley, "Programming Pearls: a sample of brilliance", CACM 1987. O(k).
        """
        chosen: set[int] = set()
        for top in range(population - k, population):
            candidate = self.below(top + 1)
            chosen.add(top if candidate in chosen else candidate)
        return sorted(chosen)


class Permutation:
    """A random order of [0, size) that can be asked at one place, in both directions.

    Up to 4096 elements it is a table in which every order is equally likely. Above, a Feistel network
    over the next power of 4, walked until it hits the range, answers in O(1) without a table.

    Source: Black, Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 3 (cycle walking).
    """

    def __init__(self, size: int, key: int) -> None:
        self.size = size
        self._key = key
        self._order: list[int] | None = None
        self._positions: list[int] | None = None
        if size <= _TABLE_SIZES:
            order = shuffled(key, size)
            positions = np.empty_like(order)
            positions[order] = np.arange(size)
            self._order, self._positions = order.tolist(), positions.tolist()
        self._half = (max(1, (size - 1).bit_length()) + 1) // 2
        self._keys = [mix64((key + (turn + 1) * _GAMMA) & _MASK) for turn in range(_FEISTEL_ROUNDS)]

    def at(self, position: int) -> int:
        """The element at that place."""
        if self._order is not None:
            return self._order[position]
        return self._walk(position, self._keys)

    def position(self, element: int) -> int:
        """The place of that element: ``position(at(p)) == p``."""
        if self._positions is not None:
            return self._positions[element]
        # Swapped halves through the rounds in reverse undo them, as each is an involution up to the swap.
        return self._walk(element, self._keys[::-1])

    def table(self) -> NDArray[np.int64]:
        """``at`` of every place, shape (size,), int64."""
        if self._order is not None:
            return np.array(self._order, np.int64)
        values = np.arange(self.size, dtype=np.uint64)
        outside = np.ones(self.size, bool)
        while outside.any():
            values[outside] = self._network_array(values[outside])
            outside = values >= self.size
        return values.astype(np.int64)

    def _walk(self, value: int, keys: list[int]) -> int:
        half, mask = self._half, (1 << self._half) - 1
        while True:
            left, right = value >> half, value & mask
            if keys is not self._keys:
                left, right = right, left
            for key in keys:
                left, right = right, left ^ (mix64((key + right * _GAMMA) & _MASK) & mask)
            if keys is not self._keys:
                left, right = right, left
            value = left << half | right
            if value < self.size:
                return value

    def _network_array(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        half, mask = np.uint64(self._half), np.uint64((1 << self._half) - 1)
        left, right = values >> half, values & mask
        for key in self._keys:
            left, right = right, left ^ (_mix_array(right * np.uint64(_GAMMA) + np.uint64(key)) & mask)
        return left << half | right
