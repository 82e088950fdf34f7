"""DAMSGrad: AMSGrad whose denominators are gossiped, too, so that all ranks divide by the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.gossip.adaptive import AdaptiveStep, Betas, Scratch, decay
from pydec.gossip.base import AfterDeath, Mixer, Order, algorithms
from pydec.gossip.checks import check_order, require_doubly_stochastic, require_lossless
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Gradients, Rule
from pydec.topology.base import Topology


class DAMSGradRule(Rule):
    """Moments, the largest second moment so far, and a tracker of its mean over the ranks."""

    def __init__(self, x: Vector, compressor: Compressor, degree: int, betas: Betas) -> None:
        self._betas = betas
        self.first = aligned_floats(x.size)
        self.second = aligned_floats(x.size)
        self.largest = aligned_floats(x.size)
        self.shared = aligned_floats(x.size)
        self._scratch = Scratch(1)
        mixers = [AverageMixer(vector, compressor, degree) for vector in (x, self.shared)]
        mixers[1].move_scale = 0.0  # its moves say nothing about the models
        super().__init__(x, mixers)

    def take_step(self, gradients: Gradients, lr: float, weight_decay: float) -> None:
        """See ``DAMSGrad``."""
        for first, last, gradient in gradients.pieces(0, self.x.size):
            x, m, v = self.x[first:last], self.first[first:last], self.second[first:last]
            largest, shared = self.largest[first:last], self.shared[first:last]
            (part,) = self._scratch.take(last - first)
            decay(x, lr, weight_decay)
            self._betas.moments(gradient, (m, v), (m, part))
            np.copyto(v, part)
            np.maximum(largest, v, out=part)
            kernels.tracking_mix([shared], [1.0], part, largest, shared)
            np.maximum(shared, np.float32(self._betas.eps), out=part)
            np.sqrt(part, out=part)
            np.divide(m, part, out=part)
            kernels.mix([x, part], [1.0, -lr], out=x)

    def restart(self) -> None:
        """u <- h: the sum over the survivors is that of their own h again."""
        np.copyto(self.shared, self.largest)

    @property
    def state_bytes(self) -> int:
        """Four vectors and what a step needs of memory."""
        return super().state_bytes + self._scratch.nbytes

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Moments, largest second moment and its tracker."""
        return {
            "first": self.first,
            "second": self.second,
            "largest": self.largest,
            "shared": self.shared,
        }


@algorithms.register("damsgrad")
@dataclass(frozen=True)
class DAMSGrad(AdaptiveStep):
    """AMSGrad on the mean of all ranks' second moments: adaptive steps that are right under different data.

    m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g^2; h+ = max(h, v);
    u_i <- sum_j w_ij u_j + h+ - h; x_i <- sum_j w_ij x_j - eta m / sqrt(max(u_i, eps)). The sum of u over the
    ranks is always that of h; where ranks divide by the same u, their steps add up to that of the mean
    gradient, while local Adam makes every rank's step about as long and finds the median of their optima.

    The paper adds h+ - h after the step; here it counts at once, so that the first gradient of a coordinate
    is not divided by sqrt(eps). Both have the same fixed points. order=atc mixes after the step.

    Around torch.optim.SGD without momentum, whose groups give eta and the weight decay, decoupled as AdamW's.
    Moments are not bias-corrected. As with gradient tracking, the rate is limited by what reaches all ranks.

    Source: Chen, Karimi, Zhao, Li, "On the Convergence of Decentralized Adaptive Gradient Methods", ACML
    2022, arXiv:2109.03194, algorithm 3.
    """

    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    lossless: ClassVar[bool] = True
    plain_mixing: ClassVar[bool] = False
    name: ClassVar[str] = "damsgrad"
    order: Order = "cta"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.name, self.order)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compression, and weights that let the sums drift."""
        require_doubly_stochastic(self.name, topology)
        require_lossless(self.name, compressor, "its error would add up in the shared second moment")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing, as of the models and the second moments."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """Moments that start at zero."""
        return DAMSGradRule(x, compressor, degree, self.betas)
