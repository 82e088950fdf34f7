"""BEER: gradient tracking whose two messages are compressed differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import AfterDeath, Algorithm, Mixer, Order, algorithms
from pydec.gossip.checks import BIG, require_doubly_stochastic, require_static_connected
from pydec.gossip.choco import Choco
from pydec.gossip.rule import Rule
from pydec.gossip.tracking import TrackingRule
from pydec.topology.base import Topology


class BeerRule(TrackingRule):
    """Tracks the mean gradient; estimates of the models and of the trackers have names of their own."""

    def state(self) -> dict[str, NDArray[np.float32]]:
        """The tracker, what it was last given, and the estimates of both mixers."""
        model, tracker = self.mixers
        return {
            **self.own_state(),
            **model.state(),
            **{f"tracker.{name}": vector for name, vector in tracker.state().items()},
        }


@algorithms.register("beer")
@dataclass(frozen=True)
class Beer(Algorithm):
    """Gradient tracking with any compressor: the common optimum of different data, few bytes; static graphs.

    With estimates H of the models X, G of the trackers V, and a compressor C, in matrix form:
    X <- X + gamma (W - I) H - eta V; H <- H + C(X - H);
    V <- V + gamma (W - I) G + grad+ - grad; G <- G + C(V - G).
    Both differences travel in one round, during the gradient. The mean of V over the ranks is always that of
    the gradients, whatever the compressor loses, so the fixed point is exact. The local optimiser sees V in
    place of the gradient (``parameter.grad`` holds it after a step).

    ``gamma`` as in choco. The learning rate must be smaller than without compression.

    Source: Zhao, Li, Li, Richtarik, Chi, "BEER: Fast O(1/T) Rate for Decentralized Nonconvex Optimization
    with Communication Compression", NeurIPS 2022, arXiv:2201.13320, algorithm 1.
    """

    budget: ClassVar[int] = 3
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    needs_gradient: ClassVar[bool] = True
    on_gpu: ClassVar[bool] = True
    plain_mixing: ClassVar[bool] = False
    order: ClassVar[Order] = "cta"  # type: ignore[misc]  # the equations' own
    gamma: float | None = None

    def __post_init__(self) -> None:
        if self.gamma is not None and not 0.0 < self.gamma <= 1.0:
            raise ConfigError(f"beer.gamma must be in (0, 1], got {self.gamma}")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse graphs that change, weights that let sums drift, and compressors that do not contract."""
        require_doubly_stochastic("beer", topology)
        require_static_connected("beer", topology)
        if compressor.delta(BIG) == 0:
            raise ConfigError(
                f"beer's estimates would grow without bound with {type(compressor).__name__}, whose errors "
                "can be as large as what it encodes; use a smaller block, rounding=nearest or unbiased=false"
            )

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Estimates that start at zero."""
        return Choco(gamma=self.gamma).mixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """Tracker and estimates start at zero."""
        return BeerRule(x, lambda vector: self.mixer(vector, compressor, degree))
