"""The order in which a data set's samples are read, and which rank reads which of them.

An epoch is one sequence of all samples, a function of (seed, epoch) alone. The shards are permuted, rows of
consecutive shards make windows, and the samples of a window are permuted: so what is read together fits a
cache, and a data set of one window is permuted as a whole. Both permutations are keyed Feistel networks: any
place of the sequence is computed by itself, and no list of the samples is ever made.

Each rank reads a part of the sequence, contiguous so that ranks read different shards. After some samples of
each rank, what is left of the sequence is a few intervals, which other ranks may cut anew.

Source: Luby, Rackoff, "How to construct pseudorandom permutations from pseudorandom functions", SIAM Journal
on Computing 17(2), 1988; for sizes that are no power of two: Black, Rogaway, "Ciphers with arbitrary finite
domains", CT-RSA 2002, cycle walking.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pydec.store.integers import Words, mix

WINDOW_BYTES = 256 << 20
_ROUNDS = 6
Numbers = NDArray[np.int64]
Interval = tuple[int, int]


class Permutation:
    """A keyed permutation of the numbers below ``n``.

    Args:
        n: at least 1.
        key: what decides it.
    """

    def __init__(self, n: int, *key: object) -> None:
        if n < 1:
            raise ValueError(f"a permutation needs at least 1 number, got {n}")
        self.n = n
        half = max(1, ((n - 1).bit_length() + 1) // 2)
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        raw = blake3(repr(("pydec order", *key)).encode()).digest(length=8 * _ROUNDS)
        self._keys = np.frombuffer(raw, "<u8").astype(np.uint64)

    def __call__(self, numbers: Numbers) -> Numbers:
        """Where each number goes, int64; all in [0, n)."""
        x = self._once(numbers.astype(np.uint64))
        while True:
            outside = x >= np.uint64(self.n)
            if not outside.any():
                return x.astype(np.int64)
            x[outside] = self._once(x[outside])

    def _once(self, x: Words) -> Words:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix(right + key) & self._mask)
        return (left << self._half) | right


class Order:
    """The sequence of one epoch.

    Args:
        samples: of each shard.
        n_bytes: of each shard.
        seed, epoch: decide it.
        shuffle: False: in the order of their numbers.
        window_bytes: about how many are permuted together.
    """

    def __init__(
        self,
        samples: Sequence[int],
        n_bytes: Sequence[int],
        seed: int,
        epoch: int,
        *,
        shuffle: bool = True,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._first = np.array([0, *accumulate(samples)], np.int64)
        self.n = int(self._first[-1])
        self._shuffle = shuffle
        if not shuffle:
            return
        self._key = (seed, epoch)
        self._shards = Permutation(len(samples), seed, epoch, "shards")(np.arange(len(samples)))
        starts, total, window = [0], 0, 0
        self._windows: list[int] = [0]  # the place of each window's first shard, and the number of shards
        for place, shard in enumerate(self._shards.tolist()):
            if window and window + n_bytes[shard] > window_bytes:
                self._windows.append(place)
                starts.append(total)
                window = 0
            window += n_bytes[shard]
            total += samples[shard]
        self._windows.append(len(samples))
        self._starts = [*starts, total]
        self._made: tuple[int, Permutation, Numbers] | None = None

    def __call__(self, start: int, stop: int) -> Numbers:
        """Numbers of the samples at places ``start`` to ``stop`` of the sequence, shape (stop - start,)."""
        if not self._shuffle:
            return np.arange(start, stop)
        parts = []
        while start < stop:
            window = bisect_right(self._starts, start) - 1
            end = min(stop, self._starts[window + 1])
            parts.append(self._inside(window, start, end))
            start = end
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def window(self, place: int) -> list[int]:
        """The shards that the samples around a place of the sequence are in."""
        if not self._shuffle:
            return [int(np.searchsorted(self._first, place, "right")) - 1]
        number = bisect_right(self._starts, place) - 1
        return [int(n) for n in self._shards[self._windows[number] : self._windows[number + 1]]]

    def _inside(self, window: int, start: int, stop: int) -> Numbers:
        if self._made is None or self._made[0] != window:
            shards = self._shards[self._windows[window] : self._windows[window + 1]]
            counts = self._first[shards + 1] - self._first[shards]
            ends = np.cumsum(counts)
            permutation = Permutation(int(ends[-1]), *self._key, window)
            self._made = window, permutation, np.stack([ends, self._first[shards] - (ends - counts)])
        _, permutation, (ends, shift) = self._made
        base = self._starts[window]
        inside = permutation(np.arange(start - base, stop - base))
        found: Numbers = inside + shift[np.searchsorted(ends, inside, "right")]
        return found


def share(left: Sequence[Interval], rank: int, size: int) -> list[Interval]:
    """The part of what is left of a sequence that a rank reads; parts differ in length by at most 1.

    Args:
        left: disjoint intervals of the sequence, in order.
        rank, size: whose part, and of how many.
    """
    total = sum(stop - start for start, stop in left)
    return cut(left, total * rank // size, total * (rank + 1) // size)


def cut(intervals: Sequence[Interval], first: int, last: int) -> list[Interval]:
    """Places ``first`` to ``last`` of some intervals, as intervals."""
    found, at = [], 0
    for start, stop in intervals:
        low, high = max(first - at, 0), min(last - at, stop - start)
        if low < high:
            found.append((start + low, start + high))
        at += stop - start
    return found


def left_over(left: Sequence[Interval], size: int, taken: Sequence[int]) -> list[Interval]:
    """What is left of a sequence after each of ``size`` ranks has taken so many samples of its part."""
    found: list[Interval] = []
    for rank in range(size):
        mine = share(left, rank, size)
        found += cut(mine, taken[rank], sum(stop - start for start, stop in mine))
    return found


def blocks(order: Order, intervals: Sequence[Interval], start: int, size: int) -> Iterator[Numbers]:
    """Sample numbers at the places of some intervals, ``size`` at a time, without the first ``start``."""
    total = sum(stop - begin for begin, stop in intervals)
    for at in range(start, total, size):
        parts = [order(a, b) for a, b in cut(intervals, at, min(at + size, total))]
        yield parts[0] if len(parts) == 1 else np.concatenate(parts)
