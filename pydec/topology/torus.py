"""The torus: a grid whose opposite sides are joined."""

from __future__ import annotations

import math

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies, uniform_row


class Torus(SymmetricTopology):
    """Rank row * columns + column hears the next ones above, below, left and right, with equal weights.

    Args:
        size: number of ranks.
        rows: rows of the grid; divides ``size``.
    """

    def __init__(self, size: int, rows: int) -> None:
        self.rows, self.columns = rows, size // rows
        # On a side of 2 both directions lead to the same rank, on a side of 1 to the rank itself.
        self._sides = [side for side in (rows, self.columns) if side > 1]
        self._degree = sum(min(2, side - 1) for side in self._sides)
        exact = self._degree == size - 1
        super().__init__(f"torus:rows={rows}", size, period=1, finite_time=1 if exact else None)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        row, column = divmod(rank, self.columns)
        vertical = (((row + step) % self.rows) * self.columns + column for step in (-1, 1))
        level = (row * self.columns + (column + step) % self.columns for step in (-1, 1))
        return uniform_row(rank, (*vertical, *level))

    @property
    def degree(self) -> int:
        """Neighbours of every rank."""
        return self._degree

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round."""
        return float(self._degree)

    def _eigenvalues(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """All eigenvalues but that of the mean, by the Fourier modes along the two sides."""
        sums = np.ones(1)
        for side in self._sides:
            waves = np.cos(2 * np.pi * np.arange(side) / side) * min(2, side - 1)
            sums = np.add.outer(sums, waves).ravel()
        return sums[1:] / (1 + self._degree)

    def _gap(self) -> float:
        return 1.0 - float(np.abs(self._eigenvalues()).max())

    def _smallest(self) -> float:
        return float(self._eigenvalues().min())


@topologies.register("torus")
def torus(size: int, rows: int | None = None) -> Topology:
    """Ranks on a grid with joined sides hear their four neighbours, weight 1/5 each: 4 messages per rank.

    Spectral gap 2/5 (1 - cos(2 pi / longer side)) for sides of 3 and more, about 4 pi^2 / (5 size) on
    a square. A side of 2 has one neighbour in its direction, a side of 1 none: prime sizes are rings.

    Args:
        size: number of ranks.
        rows: rows of the grid, a divisor of the size; the one nearest to a square if None.
    """
    check_size(size)
    if rows is None:
        rows = next(side for side in range(math.isqrt(size), 0, -1) if size % side == 0)
    if rows < 1 or size % rows:
        raise ConfigError(
            f"torus needs rows that divide the number of ranks, got rows={rows} for size={size}"
        )
    return Torus(size, rows)
