"""The geometric median, by Weiszfeld's iteration on inner products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pydec.aggregate.base import Aggregator, aggregators
from pydec.aggregate.inputs import Inputs, Matrix, Weights
from pydec.errors import ConfigError

_SETTLED = 1e-12  # change of the weights, relative, at which the iteration ends


@aggregators.register("geometric-median")
@dataclass(frozen=True)
class GeometricMedian(Aggregator):
    """The point with the least sum of distances to the vectors, by smoothed Weiszfeld. Needs no f.

    y <- sum_i x_i / max(nu, ||y - x_i||) / sum_i 1 / max(nu, ||y - x_i||), from the vector with the least sum
    of distances to the others, until the weights settle.

    Args:
        f: only checked.
        nu: smoothing, a distance.
        iterations: at most so many; each costs O(n^2), whatever the length of the vectors.

    Breakdown: n >= 2 f + 1.

    Source: Pillutla, Kakade, Harchaoui, "Robust Aggregation for Federated Learning", IEEE TSP 2022,
    arXiv:1912.13445, algorithm 2. (ByzFL begins at 0 and takes 3 iterations, far from the median.)
    """

    f: int = 0
    nu: float = 1e-6
    iterations: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.nu > 0:
            raise ConfigError(f"nu must be above 0, got {self.nu}")
        if self.iterations < 1:
            raise ConfigError(f"iterations must be at least 1, got {self.iterations}")

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        start = int(np.argmin(np.sqrt(x.distances).sum(axis=1)))
        weights = np.eye(x.n)[start]
        for _ in range(self.iterations):
            inverse = 1.0 / np.maximum(self.nu, lengths(x.local, weights))
            new = inverse / inverse.sum()
            done = np.abs(new - weights).max() <= _SETTLED
            weights = new
            if done:
                break
        x.combine(weights, out)


def lengths(gram: Matrix, weights: Weights) -> Weights:
    """||x_k - y|| for y = c + sum_i weights[i] (x_i - c), from the Gram matrix about c."""
    towards = gram @ weights
    squared = np.diagonal(gram) - 2.0 * towards + weights @ towards
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))
