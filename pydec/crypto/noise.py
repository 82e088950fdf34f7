"""Random numbers that privacy rests on: which samples a step takes, and the noise on what it sends.

Whoever can tell these numbers takes the noise off again, so neither a public seed nor a statistical generator
(Mersenne twister, Philox, PCG) will do: they come from AES-256 in counter mode (NIST SP 800-38A, section 6.5)
under a key that lives in one process alone. A process that is started again has another key, so no number
is ever used for two steps, also after a checkpoint was restored.

Normal numbers are made in float64 by the method of Box and Muller (Annals of Mathematical Statistics 29,
1958), from 64 random bits for the radius and 53 for the angle; they reach 9.5 deviations. Which floats can
come out depends on how they were made, so that the lowest bits of a sum may tell what was under the noise
(Mironov, "On significance of the least significant bits for differential privacy", CCS 2012). ``on_grid``
therefore gives whole multiples of a grid that is about 2^24 times finer than the deviation. Added exactly to
another multiple of that grid they are the sum of this multiple and a normal number, rounded: every multiple
can come out, whatever was under it. That is no proof: logarithm and cosine are right to about one part in
10^15, and nothing lies beyond 9.5 deviations.
"""

from __future__ import annotations

import math
import os
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from pydec.errors import SetupError

KEY_BYTES = 32
GRID_BITS = 24
_BLOCK = 1 << 14  # numbers made at a time, so that what they need stays in the cache
_ZERO = bytes(8 * _BLOCK)


class SecretNumbers:
    """An endless stream of random numbers that only this process can know; one thread at a time uses it.

    Args:
        key: 32 bytes, for tests: the same key gives the same numbers. None draws one from the system.

    Raises:
        ValueError: a key of another length.
    """

    def __init__(self, key: bytes | None = None) -> None:
        key = os.urandom(KEY_BYTES) if key is None else key
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._process = os.getpid()

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret numbers are neither copied nor stored: a restored stream would repeat them")

    def words(self, n: int) -> NDArray[np.uint64]:
        """``n`` integers, each of [0, 2^64) as likely as any other.

        Raises:
            SetupError: this process was forked from the one that made the key.
        """
        if os.getpid() != self._process:
            raise SetupError(
                f"the secret numbers of process {self._process} are in process {os.getpid()}, which was "
                "forked from it and would use them twice; make them after the fork"
            )
        made = np.empty(n, np.uint64)
        into = memoryview(made).cast("B")
        for start in range(0, len(into), len(_ZERO)):
            part = into[start : start + len(_ZERO)]
            self._stream.update_into(memoryview(_ZERO)[: len(part)], part)
        return made

    def choose(self, n: int, rate: float) -> NDArray[np.int64]:
        """Poisson sampling: each of 0 ... n - 1 by itself with probability ``rate``, rounded down to 2^-64.

        Args:
            n: how many there are to choose from.
            rate: in [0, 1].

        Returns:
            Those chosen, ascending; maybe none.
        """
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"a probability is in [0, 1], got {rate}")
        if rate == 1.0:
            return np.arange(n, dtype=np.int64)
        limit = np.uint64(math.floor(math.ldexp(rate, 64)))
        parts = [
            start + np.flatnonzero(self.words(min(_BLOCK, n - start)) < limit)
            for start in range(0, n, _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def normal(self, n: int) -> NDArray[np.float64]:
        """``n`` independent numbers of mean 0 and deviation 1. Uses 8 bytes of the stream for each."""
        made = np.empty(n)
        for start in range(0, n, _BLOCK):
            part = made[start : start + _BLOCK]
            half = -(-len(part) // 2)
            words = self.words(2 * half)
            # the middle of each step: never 0, which has no logarithm
            radius = np.sqrt(-2.0 * np.log((words[:half] + 0.5) * 2.0**-64))
            angle = (words[half:] >> np.uint64(11)) * (2.0 * math.pi * 2.0**-53)
            part[:half] = radius * np.cos(angle)
            part[half:] = (radius * np.sin(angle))[: len(part) - half]
        return made

    def on_grid(self, n: int, deviation: float) -> tuple[NDArray[np.float64], float]:
        """``n`` normal numbers of mean 0 as whole multiples of a grid.

        Args:
            n: how many.
            deviation: of each, above 0.

        Returns:
            The multiples, integers in float64, and the grid, a power of two: ``grid_of(deviation)``.
        """
        grid = grid_of(deviation)
        made = self.normal(n)
        made *= deviation / grid
        return np.rint(made, out=made), grid


def grid_of(deviation: float) -> float:
    """The power of two in [2^-24, 2^-23] of a deviation, of which ``on_grid`` gives multiples."""
    if not (deviation > 0.0 and math.isfinite(deviation)):
        raise ValueError(f"a deviation is above 0 and finite, got {deviation}")
    return math.ldexp(1.0, math.frexp(deviation)[1] - GRID_BITS)
