"""Steps before a rule: nearest-neighbour mixing, bucketing, adaptive clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec.aggregate.base import PreAggregator, nearest, preaggregators
from pydec.aggregate.inputs import Inputs, Matrix
from pydec.errors import ConfigError


@preaggregators.register("nnm")
@dataclass(frozen=True)
class NearestNeighbourMixing(PreAggregator):
    """Every vector becomes the mean of the n - f vectors nearest to it, itself included.

    Breakdown: n >= 2 f + 1. Makes most rules order-optimal under different data.

    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan, "Fixing by Mixing: A Recipe for Optimal
    Byzantine ML under Heterogeneity", AISTATS 2023, arXiv:2302.01772, algorithm 2.
    """

    def matrix(self, x: Inputs, f: int, draw: np.random.Generator) -> Matrix:
        """See ``PreAggregator.matrix``."""
        kept = x.n - f
        weights = np.zeros((x.n, x.n))
        for row, group in zip(weights, nearest(x.distances, kept), strict=True):
            row[group] = 1.0 / kept
        return weights


@preaggregators.register("bucketing")
@dataclass(frozen=True)
class Bucketing(PreAggregator):
    """Random buckets of ``size`` vectors become their means: fewer vectors, alike in distribution.

    The last bucket may be smaller. Every liar may spoil a bucket, so the rule that follows has f liars among
    ceil(n / size) vectors.

    Args:
        f: vectors that may be anything; what follows checks it.
        size: of a bucket.

    Breakdown: that of the rule that follows, for ceil(n / size) vectors.

    Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
    2022, arXiv:2006.09365, algorithm 1.
    """

    geometric: ClassVar[bool] = False
    slope: ClassVar[int] = 0
    size: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ConfigError(f"size must be at least 1, got {self.size}")

    def left(self, n: int) -> int:
        """ceil(n / size)."""
        return -(-n // self.size)

    def matrix(self, x: Inputs, f: int, draw: np.random.Generator) -> Matrix:
        """See ``PreAggregator.matrix``."""
        order = draw.permutation(x.n)
        weights = np.zeros((self.left(x.n), x.n))
        for bucket, row in enumerate(weights):
            members = order[bucket * self.size : (bucket + 1) * self.size]
            row[members] = 1.0 / len(members)
        return weights


@preaggregators.register("arc")
@dataclass(frozen=True)
class AdaptiveClipping(PreAggregator):
    """The floor(2 (f / n) (n - f)) longest vectors are clipped to the length of the next one.

    Lengths are those of the differences from the own model, or from the origin without one.

    Breakdown: n >= 2 f + 1.

    Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan, "Adaptive Gradient Clipping for Robust
    Federated Learning", ICLR 2025, arXiv:2405.14432, algorithm 2.
    """

    geometric: ClassVar[bool] = False  # lengths alone are cheaper

    def matrix(self, x: Inputs, f: int, draw: np.random.Generator) -> Matrix:
        """See ``PreAggregator.matrix``."""
        lengths = np.sqrt(x.squared)
        clipped = min(2 * f * (x.n - f) // x.n, x.n - 1)
        bound = np.sort(lengths)[x.n - clipped - 1]
        return np.diag(np.divide(bound, lengths, out=np.ones(x.n), where=lengths > bound))
