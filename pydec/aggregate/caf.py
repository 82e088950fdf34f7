"""CAF: vectors lose weight as far as they stretch the direction of largest variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pydec.aggregate.base import Aggregator, aggregators
from pydec.aggregate.inputs import Inputs, Weights


@aggregators.register("caf")
@dataclass(frozen=True)
class CovarianceFilter(Aggregator):
    """Covariance-bound agnostic filter: the weighted mean whose covariance has the least top eigenvalue.

    From c_i = 1: mu = sum_i c_i x_i / sum_i c_i; v, lambda the top eigenvector and eigenvalue of the weighted
    covariance; c_i <- c_i (1 - tau_i / max tau), tau_i = <v, x_i - mu>^2, until sum_i c_i <= n - 2 f. The mu
    of the least lambda on the way is the result. Needs no bound on the honest vectors' variance.

    Breakdown: n >= 2 f + 1.

    Source: Allouah, Guerraoui, Stephan, "Towards Trustworthy Federated Learning with Untrusted
    Participants", ICML 2025, arXiv:2505.01874, algorithm 2. The eigenvectors are exact, from the Gram matrix.
    """

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        n = x.n
        keep = np.ones(n)
        best, least = keep / n, np.inf
        while keep.sum() > n - 2 * f or not np.isfinite(least):
            mean = keep / keep.sum()
            value, far = _stretch(x, keep, mean)
            if value < least:
                best, least = mean, value
            top = far[keep > 0].max()
            if not top > 0:
                break  # all that count are one point
            keep = np.where(keep > 0, keep * (1.0 - np.minimum(far / top, 1.0)), 0.0)
            if not keep.any():
                break
        x.combine(best, out)


def _stretch(x: Inputs, keep: Weights, mean: Weights) -> tuple[float, Weights]:
    """The top eigenvalue of the weighted covariance, and <v, x_i - mean>^2 of its eigenvector v."""
    towards = x.local @ mean
    centred = x.local - towards[:, None] - towards[None, :] + mean @ towards
    root = np.sqrt(keep / keep.sum())
    values, vectors = np.linalg.eigh(root[:, None] * centred * root[None, :])
    value = max(float(values[-1]), 0.0)
    if value == 0.0:
        return 0.0, np.zeros(x.n)
    along = centred @ (root * vectors[:, -1])  # <v, x_i - mean> sqrt(value)
    return value, np.asarray(along**2 / value)
