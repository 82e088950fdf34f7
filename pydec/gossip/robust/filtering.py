"""Robust gossip that filters: neighbours lose weight as far as they stretch directions of large variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from pydec.aggregate.inputs import Matrix
from pydec.gossip.base import robust_rules
from pydec.gossip.robust.base import Heard, RobustAlgorithm, Weights

DIRECTIONS = 64
"""That are averaged."""

_BEYOND = 1e5  # times the (f + 1)-th largest distance: only liars are there, and products are rounding
_ROUNDING = 1e-9


@robust_rules.register("spectral-filter")
@dataclass(frozen=True)
class SpectralFilter(RobustAlgorithm):
    """The graph's average with weights filtered along random directions of large variance; the own stays.

    Along one direction: from the graph's weights c, mu = sum_i c_i x_i / sum_i c_i, C the covariance with
    weights c, v = C z / |C z| for a Gaussian z, tau_i = <v, x_i - mu>^2; neighbours' c_i <- c_i (1 - tau_i /
    max tau), until twice the weight that f liars can have is gone. The c of the least <v, C v> on the way,
    divided by its sum, is that direction's answer; the rule's is the mean over ``DIRECTIONS`` of them, the
    same in every round. Everything follows from the inner products of the models about the own one.

    The default where every rank hears more than 3 f others.

    Breakdown: at least 2 f neighbours.

    Source: Allouah, Guerraoui, Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants",
    ICML 2025, arXiv:2505.01874, algorithm 2 (CAF), which takes the top eigenvector of C for v. That one
    always silences the honest rank that stands out most; and where data differ lies that hide from one
    direction are seen from others. One draw of v is a step of the power method, by which ByzFL has it.
    """

    name: ClassVar[str] = "spectral-filter"
    condition: ClassVar[str] = "2 f"
    asks_pairs: ClassVar[bool] = True

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return 2 * f

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        if not heard.f:
            return heard.weights
        far = heard.distances
        start = np.append(max(0.0, 1.0 - float(heard.weights.sum())), heard.weights)
        start[1:][far > _BEYOND * np.partition(far, -1 - heard.f)[-1 - heard.f]] = 0.0
        gram = np.zeros((len(start), len(start)))
        gram[1:, 1:] = heard.gram()
        return filtered(gram, start, 1.0 - 2.0 * heard.suspect)[1:]


def filtered(gram: Matrix, start: Weights, least: float) -> Weights:
    """Weights after the filter along random directions, the mean over them; their sum is 1.

    Args:
        gram: inner products of n models about any point, shape (n, n).
        start: weights before it, shape (n,); the first stays.
        least: sum of the weights at which a filter stops.
    """
    points = _along(gram) @ _directions(len(start))  # <x_i, z>, one column for each z
    kept = np.repeat(start[:, None], DIRECTIONS, axis=1)
    best = kept / kept.sum(axis=0)
    lowest = np.full(DIRECTIONS, np.inf)
    going = np.ones(DIRECTIONS, np.bool_)
    while going.any():
        share = kept / kept.sum(axis=0)
        pull = share * (points - (share * points).sum(axis=0))  # of x_i - mu on C z
        along = gram @ pull
        along -= (share * along).sum(axis=0)  # <C z, x_i - mu>
        squared = (pull * along).sum(axis=0)  # |C z|^2
        tau = np.divide(along**2, squared, out=np.zeros_like(along), where=squared > 0)
        variance = (share * tau).sum(axis=0)
        better = going & (variance < lowest)
        best[:, better], lowest[better] = share[:, better], variance[better]
        top = np.where(kept[1:] > 0, tau[1:], 0.0).max(axis=0)
        going &= top > 0
        kept[1:, going] *= 1.0 - np.minimum(tau[1:, going] / top[going], 1.0)
        going &= kept.sum(axis=0) > least + _ROUNDING
    return np.asarray(best.mean(axis=1))


def _along(gram: Matrix) -> Matrix:
    """The symmetric root of a Gram matrix: it does not depend on how eigenvectors are chosen."""
    values, vectors = np.linalg.eigh(gram)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T)


@cache
def _directions(n: int) -> Matrix:
    return np.random.default_rng(0).standard_normal((n, DIRECTIONS))
