"""What a topology is: a periodic schedule of mixing matrices, a function of its size alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pydec.registry import Registry

Matrix = NDArray[np.float64]


class Topology:
    """A schedule of doubly stochastic mixing matrices over ``size`` ranks.

    ``weights(t)[i, j]`` is the weight that rank i gives to what rank j sent in round t, so rank i
    receives from the j with a positive weight in its row and sends to those in its column.
    Subclasses or factories supply the matrices of one period; random schedules compute them from
    (seed, round) and have ``period`` 0. Holds no communicator, device or rank.
    """

    name: str
    size: int
    period: int
    """Rounds after which the schedule repeats; 1 is a static graph, 0 never repeats."""

    def weights(self, round: int) -> Matrix:
        """Mixing matrix of that round, shape (size, size), float64, read-only."""
        raise NotImplementedError

    def row(self, rank: int, round: int) -> tuple[float, dict[int, float]]:
        """(own weight, {rank heard: weight}) of one rank in one round, ranks in increasing order."""
        raise NotImplementedError

    def neighbors(self, rank: int, round: int) -> list[int]:
        """Ranks that ``rank`` receives from in that round, increasing, without itself."""
        raise NotImplementedError

    def listeners(self, rank: int, round: int) -> list[int]:
        """Ranks that receive from ``rank`` in that round, increasing, without itself."""
        raise NotImplementedError
