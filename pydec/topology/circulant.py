"""Schedules in which every rank does the same: rank r hears r + offset (mod size)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydec.topology.base import Topology


class Circulant(Topology):
    """Matrices whose row r is row 0 shifted by r.

    All circulant matrices of one size commute and are normal, so eigenvalues are a Fourier
    transform of row 0 and the order of rounds does not matter for their product.

    Args:
        name: specification that makes this topology.
        size: number of ranks.
        rounds: for each round of the period, {offset in [0, size): weight}, offset 0 being the own
            weight; weights are positive and sum to 1.
        finite_time, identity: see ``Topology``.
    """

    def __init__(
        self,
        name: str,
        size: int,
        rounds: Sequence[Mapping[int, float]],
        finite_time: int | None = None,
        identity: str = "",
    ) -> None:
        super().__init__(name, size, len(rounds), finite_time)
        self._identity = identity
        self._rounds = [dict(sorted(round.items())) for round in rounds]

    def offsets(self, round: int) -> tuple[list[int], list[float]]:
        """Whom rank 0 hears in that round and with which weights, itself first."""
        weights = {0: 0.0, **self._rounds[self._slot(round)]}
        return list(weights), list(weights.values())

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        n, weights = self.size, self._rounds[slot]
        heard = sorted(((rank + offset) % n, weight) for offset, weight in weights.items() if offset)
        return weights[0], dict(heard)

    def _listeners(self, rank: int, slot: int) -> list[int]:
        return sorted((rank - offset) % self.size for offset in self._rounds[slot] if offset)

    @property
    def degree(self) -> int:
        """Largest number of neighbours that any rank hears in any round."""
        return max(len(weights) - 1 for weights in self._rounds)

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the period."""
        return sum(len(weights) - 1 for weights in self._rounds) / len(self._rounds)

    @property
    def is_symmetric(self) -> bool:
        """Whether every offset has its opposite with the same weight."""
        return all(
            weights.get(-offset % self.size) == weight
            for weights in self._rounds
            for offset, weight in weights.items()
        )

    @property
    def identity(self) -> str:
        """What tells it from others of the same name and size."""
        return self._identity

    def _eigenvalues(self, slot: int) -> NDArray[np.complex128]:
        row = np.zeros(self.size)
        row[list(self._rounds[slot])] = list(self._rounds[slot].values())
        return np.fft.fft(row)

    def _smallest(self) -> float:
        return float(self._eigenvalues(0).real.min())

    def _gap(self) -> float:
        magnitudes = np.ones(self.size)
        for slot in range(self.period):
            magnitudes *= np.abs(self._eigenvalues(slot))
        # Frequency 0 is the mean, which every round keeps.
        return 1.0 - math.pow(magnitudes[1:].max(), 1.0 / len(self._rounds))


def uniform(size: int, offsets: Iterable[int]) -> dict[int, float]:
    """Round in which every rank gives itself and ``rank + offset`` for each offset the same weight.

    Offsets that are equal modulo ``size`` count once. 1 / m is rounded once, so the weights have
    the same bits on every machine.
    """
    heard = {0, *(offset % size for offset in offsets)}
    return dict.fromkeys(sorted(heard), 1 / len(heard))
