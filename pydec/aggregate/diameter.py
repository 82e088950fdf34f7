"""Minimum-diameter averaging: the mean of the n - f vectors that lie closest together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pydec.aggregate.base import Aggregator, aggregators
from pydec.aggregate.inputs import Inputs, Matrix
from pydec.errors import ConfigError

MOST = 20
"""Vectors: choosing among subsets of more takes too long."""


@aggregators.register("mda")
@dataclass(frozen=True)
class MinimumDiameter(Aggregator):
    """The mean of the n - f vectors with the least diameter; of several such sets the first in order.

    Breakdown: n >= 2 f + 1. At most 20 vectors: the search is exact, and its time grows with the number of
    subsets.

    Source: El Mhamdi, Guerraoui, Guirguis, Hoang, Rouault, "Genuinely Distributed Byzantine Machine
    Learning", PODC 2020, arXiv:1905.03853; after Rousseeuw, "Multivariate estimation with high breakdown
    point", 1985.
    """

    slope: ClassVar[int] = 2

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        if x.n > MOST:
            raise ConfigError(
                f"mda searches subsets of at most {MOST} vectors, got {x.n}; use multi-krum or caf"
            )
        weights = np.zeros(x.n)
        weights[tightest(x.distances, x.n - f)] = 1.0 / (x.n - f)
        x.combine(weights, out)


def tightest(distances: Matrix, size: int) -> list[int]:
    """The first, in lexicographic order, of the subsets of that size with the least diameter.

    The diameter is one of the distances: the least for which the graph of pairs that are no farther apart
    holds a clique of that size.
    """
    n = len(distances)
    if size <= 1:
        return list(range(size))
    levels = np.unique(distances[np.triu_indices(n, 1)])
    low, high = 0, len(levels) - 1  # the highest level joins all pairs
    best = _clique(distances, float(levels[high]), size)
    while low < high:
        middle = (low + high) // 2
        found = _clique(distances, float(levels[middle]), size)
        if found is None:
            low = middle + 1
        else:
            high, best = middle, found
    assert best is not None
    return best


def _clique(distances: Matrix, level: float, size: int) -> list[int] | None:
    n = len(distances)
    near = [sum(1 << j for j in range(n) if j != i and distances[i, j] <= level) for i in range(n)]

    def extend(chosen: list[int], candidates: int) -> list[int] | None:
        if len(chosen) == size:
            return chosen
        while candidates.bit_count() >= size - len(chosen):
            lowest = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            found = extend([*chosen, lowest], candidates & near[lowest])
            if found is not None:
                return found
        return None

    return extend([], (1 << n) - 1)
