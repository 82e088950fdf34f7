"""Robust gossip that chooses: neighbours whose models are near count, the others do not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec.aggregate.geometric_median import lengths
from pydec.errors import ConfigError
from pydec.gossip.base import robust_rules
from pydec.gossip.robust.base import Heard, RobustAlgorithm, Weights

_ROUNDING = 1e-9


@robust_rules.register("nna")
@dataclass(frozen=True)
class NearestNeighbourAverage(RobustAlgorithm):
    """The mean of the own model and the neighbours' without the f farthest ones (MoNNA's). For dense graphs.

    Breakdown: at least 2 f neighbours; the proof is for complete graphs and asks for many more.

    Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan, "Robust Collaborative Learning with Linear
    Gradient Overhead", ICML 2023, arXiv:2209.10931, algorithm 1.
    """

    name: ClassVar[str] = "nna"
    condition: ClassVar[str] = "2 f"

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return 2 * f

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        kept = len(heard.distances) - heard.f
        weights = np.zeros_like(heard.weights)
        weights[np.argsort(heard.distances, kind="stable")[:kept]] = 1.0 / (1 + kept)
        return weights


@robust_rules.register("gts")
@dataclass(frozen=True)
class GeometricTrimmedSum(RobustAlgorithm):
    """The graph's average, with the own model in place of the farthest neighbours, those of f's weight.

    NNA's form for graphs with weights.

    Breakdown: at least 2 f neighbours.

    Source: Gaucher, Dieuleveut, Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML
    2025, arXiv:2410.10418.
    """

    name: ClassVar[str] = "gts"
    condition: ClassVar[str] = "2 f"

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return 2 * f

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        order = np.argsort(-heard.distances, kind="stable")
        dropped = order[np.cumsum(heard.weights[order]) <= heard.suspect + _ROUNDING]
        weights = heard.weights.copy()
        weights[dropped] = 0.0
        return weights


@robust_rules.register("ios")
@dataclass(frozen=True)
class IterativeOutlierScissor(RobustAlgorithm):
    """f times the neighbour farthest from the weighted mean is dropped; then the weighted mean of the rest.

    The own model counts with its weight and is never dropped.

    Breakdown: at least 2 f neighbours; the proof bounds the weight of the liars by 1 / 3.

    Source: Wu, Chen, Ling, "Byzantine-Resilient Decentralized Stochastic Optimization with Robust Aggregation
    Rules", IEEE TSP 2023, arXiv:2206.04568, algorithm 3.
    """

    name: ClassVar[str] = "ios"
    condition: ClassVar[str] = "2 f"
    asks_pairs: ClassVar[bool] = True

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return 2 * f

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        own = max(0.0, 1.0 - float(heard.weights.sum()))
        kept = np.ones(len(heard.weights), np.bool_)
        gram = heard.gram() if heard.f else np.empty((0, 0))
        for _ in range(heard.f):
            weights = np.where(kept, heard.weights, 0.0)
            far = lengths(gram, weights / (own + weights.sum()))
            kept[int(np.argmax(np.where(kept, far, -1.0)))] = False
        weights = np.where(kept, heard.weights, 0.0)
        return np.asarray(weights / (own + weights.sum()))


@robust_rules.register("balance")
@dataclass(frozen=True)
class Balance(RobustAlgorithm):
    """Neighbours within gamma exp(-kappa t / horizon) ||x_i|| are accepted and averaged with the own model.

    x_i <- alpha x_i + (1 - alpha) mean of the accepted; the own model where nobody is.

    Args:
        f: not used by the rule.
        order: see ``RobustAlgorithm``.
        gamma, kappa: the radius, in lengths of the own model, at the beginning, and how it shrinks.
        alpha: weight of the own model.
        horizon: rounds of the whole run; 0 keeps the radius as it begins.

    Breakdown: no count; gamma must fit the distances between honest models, and liars within it count.

    Source: Fang, Zhang, Hairi, Khanduri, Liu, Lu, Liu, Gong, "Byzantine-Robust Decentralized Federated
    Learning", CCS 2024, arXiv:2406.10416, equation (5).
    """

    name: ClassVar[str] = "balance"
    condition: ClassVar[str] = "f + 1"
    gamma: float = 0.3
    kappa: float = 1.0
    alpha: float = 0.5
    horizon: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.gamma > 0 or not self.kappa >= 0 or not 0.0 <= self.alpha < 1.0 or self.horizon < 0:
            raise ConfigError(
                "balance needs gamma > 0, kappa >= 0, alpha in [0, 1) and horizon >= 0, got "
                f"gamma={self.gamma}, kappa={self.kappa}, alpha={self.alpha}, horizon={self.horizon}"
            )

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return f + 1 if f else 0

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        done = min(1.0, heard.round / self.horizon) if self.horizon else 0.0
        accepted = heard.distances <= self.gamma * math.exp(-self.kappa * done) * heard.norm()
        return np.asarray(accepted * ((1.0 - self.alpha) / max(1, int(accepted.sum()))), np.float64)


@robust_rules.register("ubar")
@dataclass(frozen=True)
class UBAR(RobustAlgorithm):
    """Of the nearest neighbours those whose models are no worse than the own one on the own batch.

    The ceil(rho m) nearest of m are tried; of them those with a loss of at most the own model's, or else the
    best, are averaged: x_i <- alpha x_i + (1 - alpha) mean. One forward pass for each; see
    ``DecentralizedOptimizer.judge``.

    Args:
        f: neighbours that may be anything.
        order: see ``RobustAlgorithm``.
        rho: share of the neighbours that is tried.
        alpha: weight of the own model.

    Breakdown: rho m honest neighbours: m - f >= ceil(rho m).

    Source: Guo, Zhang, Yu, Xie, Ma, Xiang, Liu, "Byzantine-Resilient Decentralized Stochastic Gradient
    Descent", IEEE TCSVT 2022, arXiv:2002.08569, algorithm 1.
    """

    name: ClassVar[str] = "ubar"
    asks_loss: ClassVar[bool] = True
    on_gpu: ClassVar[bool] = False  # models are judged one by one, from host memory
    condition: ClassVar[str] = "f + ceil(rho m)"
    rho: float = 0.4
    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.rho <= 1.0 or not 0.0 <= self.alpha < 1.0:
            raise ConfigError(
                f"ubar needs rho in (0, 1] and alpha in [0, 1), got rho={self.rho}, alpha={self.alpha}"
            )

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return f + math.ceil(self.rho * m)

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        tried = np.argsort(heard.distances, kind="stable")[: math.ceil(self.rho * len(heard.distances))]
        own = heard.loss(-1)
        losses = np.array([heard.loss(int(k)) for k in tried])
        losses[~np.isfinite(losses)] = np.inf
        good = tried[losses <= own]
        if not len(good):
            good = tried[[int(np.argmin(losses))]]
        weights = np.zeros_like(heard.weights)
        weights[good] = (1.0 - self.alpha) / len(good)
        return weights
