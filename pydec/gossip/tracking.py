"""Gradient tracking and momentum tracking: a second message carries the mean gradient of all ranks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.gossip.base import AfterDeath, Algorithm, Mixer, algorithms
from pydec.gossip.checks import check_momentum, require_doubly_stochastic, require_lossless
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import floats_beside
from pydec.gossip.rule import Gradients, LocalOptimizer, Rule
from pydec.topology.base import Topology


class TrackingRule(Rule):
    """Feeds the local optimiser with a tracker y of the mean over the ranks of u, u = momentum u + g.

    Args:
        x: see ``Rule``.
        mixer: makes the mixers of x and of the tracker.
        momentum: of u.
    """

    def __init__(self, x: Vector, mixer: Callable[[Vector], Mixer], momentum: float = 0.0) -> None:
        self.momentum = momentum
        self.tracker: Vector = floats_beside(x, len(x))
        self.previous: Vector = floats_beside(x, len(x))
        self._scratch: Vector = floats_beside(x, 0)
        first, second = mixer(x), mixer(self.tracker)
        second.move_scale = 0.0  # it is the tracker, whose moves say nothing about the models
        super().__init__(x, [first, second])

    def gradient(self, gradients: Gradients) -> None:
        """y <- (y + u) - u of the step before, with y mixed since; the optimiser sees y."""
        for first, last, gradient in gradients.pieces(0, len(self.x), write=True):
            tracker, previous = self.tracker[first:last], self.previous[first:last]
            new = self._accumulated(gradient, previous) if self.momentum else gradient
            kernels.tracking_mix([tracker], [1.0], new, previous, tracker)
            gradient[:] = tracker

    def _accumulated(self, gradient: Vector, previous: Vector) -> Vector:
        if len(self._scratch) < len(gradient):
            self._scratch = floats_beside(gradient, len(gradient))  # grows in the first step
        out = self._scratch[: len(gradient)]
        return kernels.mix([previous, gradient], [self.momentum, 1.0], out=out)

    def restart(self) -> None:
        """y <- u: the sum over the survivors is that of their own gradients again."""
        super().restart()
        self.tracker[:] = self.previous

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """The tracker and what it was last given."""
        return {"tracker": self.tracker, "previous": self.previous}


@dataclass(frozen=True)
class _Tracking(Algorithm):
    """What gradient tracking and momentum tracking share."""

    budget: ClassVar[int] = 2
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    lossless: ClassVar[bool] = True
    on_gpu: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True
    plain_mixing: ClassVar[bool] = False
    name: ClassVar[str] = ""

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compression, and weights that let the sums drift."""
        require_doubly_stochastic(self.name, topology)
        require_lossless(self.name, compressor, "its error would add up in the tracker")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing, as of the model and of its tracker."""
        return AverageMixer(x, compressor, degree)


@algorithms.register("gradient-tracking")
@dataclass(frozen=True)
class GradientTracking(_Tracking):
    """Steps along a tracker of the mean gradient: no bias from different data, any graph; two messages.

    y_i <- sum_j w_ij y_j + g_i+ - g_i; x_i <- sum_j w_ij (x_j - eta y_j); both mixed in one round. The
    sum of y over the ranks is always that of the gradients. The local optimiser sees y in place of the
    gradient (``parameter.grad`` holds it after a step), so any torch optimiser can be used. With local
    steps the tracker goes on without mixing in between.

    Source: Pu, Nedic, "Distributed Stochastic Gradient Tracking Methods", Mathematical Programming
    2021, arXiv:1805.11454, equation (5); Nedic, Olshevsky, Shi, "Achieving Geometric Convergence for
    Distributed Optimization over Time-Varying Graphs", SIAM J. Optimization 2017, arXiv:1607.03218.
    """

    name: ClassVar[str] = "gradient-tracking"

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """A tracker that starts at zero."""
        return TrackingRule(x, lambda vector: self.mixer(vector, compressor, degree))


@algorithms.register("momentum-tracking")
@dataclass(frozen=True)
class MomentumTracking(_Tracking):
    """Momentum SGD whose momentum is tracked: no bias from different data, any graph; two messages.

    u_i <- momentum u_i + g_i; x_i <- sum_j w_ij (x_j - eta (u_j - c_j));
    c_i <- sum_j w_ij (c_j - u_j) + u_i, whose sum over the ranks stays 0. Kept as y = u - c, which is
    gradient tracking of u: y_i <- sum_j w_ij y_j + u_i+ - u_i.

    The convergence rate does not depend on how different the ranks' data are, for any momentum. Around
    torch.optim.SGD without momentum of its own.

    Source: Takezawa, Bao, Niwa, Sato, Yamada, "Momentum Tracking: Momentum Acceleration for
    Decentralized Deep Learning on Heterogeneous Data", TMLR 2023, arXiv:2209.15505, algorithm 1.
    """

    name: ClassVar[str] = "momentum-tracking"
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_momentum(self.name, self.momentum)

    def check_local(self, local: LocalOptimizer) -> None:
        """Only plain SGD."""
        local.require_plain_sgd(self.name)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """A tracker that starts at zero."""
        return TrackingRule(x, lambda vector: self.mixer(vector, compressor, degree), self.momentum)
