"""Centred clipping: steps towards the vectors, none of them longer than a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pydec.aggregate.base import Aggregator, aggregators
from pydec.aggregate.geometric_median import lengths
from pydec.aggregate.inputs import Inputs
from pydec.errors import ConfigError


@aggregators.register("centred-clipping")
@dataclass(frozen=True)
class CentredClipping(Aggregator):
    """v <- v + mean_i clip(x_i - v, radius), some times, from the own model (or the last aggregate).

    What it begins at is the ``own`` of the call, and nothing is kept between calls; without one it begins at
    the vector with the least sum of distances to the others.

    Args:
        f: only checked, unless the radius is 0.
        radius: longest step towards one vector; 0 takes the median of the distances to v, anew in
            every iteration, which fewer than n / 2 liars cannot make larger than the honest ones do.
        iterations: each costs O(n^2), whatever the length of the vectors.

    Breakdown: n >= 2 f + 1; the proof asks for f / n of at most about 0.1.

    Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
    arXiv:2012.10333, equation (CC); the radius that follows the distances is ours.
    """

    radius: float = 0.0
    iterations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius >= 0:
            raise ConfigError(f"radius must be above 0, or 0 for the median distance, got {self.radius}")
        if self.iterations < 1:
            raise ConfigError(f"iterations must be at least 1, got {self.iterations}")

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        gram, weights = x.gram, np.zeros(x.n)
        if x.centre is None:
            gram = x.local
            weights[int(np.argmin(np.sqrt(x.distances).sum(axis=1)))] = 1.0
        for _ in range(self.iterations):
            far = lengths(gram, weights)
            radius = self.radius or float(np.median(far))
            # v + mean_i s_i (x_i - v): the weights of v shrink by mean(s), and vector i gains s_i / n
            share = np.divide(radius, far, out=np.ones(x.n), where=far > radius) / x.n
            weights = (1.0 - share.sum()) * weights + share
        x.combine(weights, out)
