"""Random pairs, drawn anew every round from a shared seed."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies

_SEED_BYTES = 32  # a block hash is a seed, too
_CACHED_ROUNDS = 8  # several rounds may be in flight at once


class RandomMatching(Topology):
    """Every round pairs the ranks at random; the two of a pair average. One rank idles if size is odd.

    The pairs are a function of (size, seed, round) and of nothing else, so peers need not talk to agree on
    them and a later joiner sees the same ones. Each of the possible perfect matchings is equally
    likely. The squared distance to the mean falls per round by the expected factor
    (size - 2) / (2 (size - 1)) for even sizes and 1/2 for odd ones.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        check_size(size)
        if not 0 <= seed < 1 << (8 * _SEED_BYTES):
            raise ConfigError(f"seed must be in [0, 2^{8 * _SEED_BYTES}), got {seed}")
        super().__init__("random-matching", size, period=0, finite_time=1 if size == 2 else None)
        self.seed = int(seed)
        self._partners: dict[int, NDArray[np.int64]] = {}

    def partners(self, round: int) -> NDArray[np.int64]:
        """Partner of every rank in that round, shape (size,), int64, read-only; an idle rank is its own."""
        slot = self._slot(round)
        partners = self._partners.get(slot)
        if partners is None:
            partners = _match(self.size, self.seed, slot)
            partners.setflags(write=False)
            if len(self._partners) >= _CACHED_ROUNDS:
                self._partners.pop(next(iter(self._partners)), None)
            self._partners[slot] = partners
        return partners

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        partner = int(self.partners(slot)[rank])
        return (1.0, {}) if partner == rank else (0.5, {partner: 0.5})

    def _listeners(self, rank: int, slot: int) -> list[int]:
        partner = int(self.partners(slot)[rank])
        return [] if partner == rank else [partner]

    @property
    def degree(self) -> int:
        """One, or zero if there is nobody else."""
        return min(1, self.size - 1)

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the ranks: 1 - (1 / size if size is odd)."""
        return (self.size - self.size % 2) / self.size

    @property
    def is_symmetric(self) -> bool:
        """True: the two of a pair hear one another."""
        return True

    def _gap(self) -> float:
        n = self.size
        # E[W'W] = E[W] because a matching's matrix is a projection; its second eigenvalue is
        # 1 - p n / (2 (n - 1)), p the probability of having a partner.
        return 1.0 - float(np.sqrt(1.0 - self.messages_per_round * n / (2 * (n - 1))))


@topologies.register("random-matching")
def random_matching(size: int, seed: int = 0) -> Topology:
    """Ranks average in random pairs, new ones every round: at most one message, symmetric.

    Args:
        size: number of ranks; if odd, one rank idles in each round.
        seed: shared by all peers, in [0, 2^256).
    """
    return RandomMatching(size, seed)


def _match(size: int, seed: int, round: int) -> NDArray[np.int64]:
    """Sort the ranks by pseudo-random keys and pair consecutive ones.

    Keys are SplitMix64 of a hash of (seed, round): integers only, so that every machine and every
    NumPy version draws the same pairs, which numpy.random's permutation does not promise.
    """
    text = seed.to_bytes(_SEED_BYTES, "little") + round.to_bytes(8, "little")
    state = int.from_bytes(hashlib.blake2b(text, digest_size=8, person=b"pydec matching").digest(), "little")
    keys = np.arange(1, size + 1, dtype=np.uint64)
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys += np.uint64(state)
    keys ^= keys >> np.uint64(30)
    keys *= np.uint64(0xBF58476D1CE4E5B9)
    keys ^= keys >> np.uint64(27)
    keys *= np.uint64(0x94D049BB133111EB)
    keys ^= keys >> np.uint64(31)
    order = np.argsort(keys, kind="stable")  # distinct inputs give distinct keys: SplitMix64 is a bijection
    partners = np.arange(size, dtype=np.int64)
    left, right = order[0 : size - size % 2 : 2], order[1::2]
    partners[left], partners[right] = right, left
    return partners
