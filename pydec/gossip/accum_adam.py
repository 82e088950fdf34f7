"""Accumulated Adam: a step in every iteration, moments that move with the mean of several gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.adaptive import AdaptiveStep, Betas, Scratch, decay
from pydec.gossip.base import Mixer, Order, algorithms
from pydec.gossip.checks import check_order, require_doubly_stochastic, require_whole_model
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Gradients, Rule
from pydec.topology.base import Topology


class AccumAdamRule(Rule):
    """Moments of finished groups of gradients, and the mean of the group under way."""

    def __init__(self, x: Vector, mixer: Mixer, betas: Betas, every: int) -> None:
        super().__init__(x, [mixer])
        self._betas = betas
        self._every = every
        self._steps = 0
        self.first = aligned_floats(x.size)
        self.second = aligned_floats(x.size)
        self.mean = aligned_floats(x.size)
        self._scratch = Scratch(2)

    def take_step(self, gradients: Gradients, lr: float, weight_decay: float) -> None:
        """See ``AccumAdam``."""
        self._steps += 1
        betas, groups = self._betas, -(-self._steps // self._every)
        rate = lr / (1.0 - betas.first**groups)
        root = np.float32((1.0 - betas.second**groups) ** 0.5)
        for first, last, gradient in gradients.pieces(0, self.x.size):
            x, mean = self.x[first:last], self.mean[first:last]
            state = self.first[first:last], self.second[first:last]
            step, size = self._scratch.take(last - first)
            decay(x, lr, weight_decay)
            betas.moments(gradient, state, (step, size))
            np.sqrt(size, out=size)
            np.divide(size, root, out=size)
            np.add(size, np.float32(betas.eps), out=size)
            np.divide(step, size, out=step)
            kernels.mix([x, step], [1.0, -rate], out=x)
            kernels.mix([mean, gradient], [1.0, 1.0 / self._every], out=mean)
            if self._steps % self._every == 0:
                betas.moments(mean, state, (state[0], size))
                np.copyto(state[1], size)
                mean.fill(0.0)

    @property
    def state_bytes(self) -> int:
        """Moments, mean and what a step needs of memory."""
        return super().state_bytes + self._scratch.nbytes

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Moments and the mean of the group under way."""
        return {"first": self.first, "second": self.second, "mean": self.mean}

    def numbers(self) -> dict[str, float]:
        """How many steps were taken."""
        return {"steps": float(self._steps)}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._steps = int(numbers["steps"])


@algorithms.register("accum-adam")
@dataclass(frozen=True)
class AccumAdam(AdaptiveStep):
    """Adam for gossip: steps every time, moments that move every few steps with their mean gradient.

    With m, v the moments of finished groups: m_t = beta1 m + (1 - beta1) g, v_t = beta2 v + (1 - beta2) g^2;
    x_i <- sum_j w_ij x_j - eta m_t' / (sqrt(v_t') + eps), bias-corrected for ceil(t / every) groups. After
    every ``every`` steps m <- beta1 m + (1 - beta1) a, v <- beta2 v + (1 - beta2) a^2, a their mean gradient.
    A rank's small batches then make moments as steady as those of a batch that is ``every`` times as large.

    Around torch.optim.SGD without momentum, whose groups give eta and the weight decay, which is decoupled as
    AdamW's and that of the group: what is in a group without one (biases, norms) is not decayed. Ranks whose
    data differ settle near the median of their optima, as with any local Adam: use damsgrad for those.

    Source: Wang, Zhang, Wu, Johansson, "From Promise to Practice: Realizing High-performance Decentralized
    Training", ICLR 2025, arXiv:2410.11998, appendix C (whose last line has beta1 where beta2 is meant).
    """

    name: ClassVar[str] = "accum-adam"
    beta2: float = 0.98
    every: int = 4
    order: Order = "cta"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.name, self.order)
        if self.every < 1:
            raise ConfigError(f"accum-adam.every must be at least 1, got {self.every}")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """As for dpsgd."""
        require_doubly_stochastic(self.name, topology)
        require_whole_model(self.name, compressor)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing of ``x``."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """Moments that start at zero."""
        return AccumAdamRule(x, self.mixer(x, compressor, degree), self.betas, self.every)
