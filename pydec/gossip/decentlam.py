"""DecentLaM: momentum on the gradient that mixing has corrected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.gossip.base import Algorithm, Mixer, algorithms
from pydec.gossip.checks import check_momentum, require_doubly_stochastic, require_lossless
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import LocalOptimizer, Rule, Start
from pydec.gossip.stability import check_stable
from pydec.topology.base import Topology


class DecentLaMRule(Rule):
    """Momentum m whose gradient is (x_before - mixed) / lr."""

    def __init__(self, x: Vector, mixer: Mixer, momentum: float) -> None:
        super().__init__(x, [mixer])
        self.momentum = momentum
        self.velocity = aligned_floats(x.size)
        self._start = Start(x)

    def before(self, lr: float) -> None:
        """Remember where the step started."""
        self._start.take(lr)

    def arrive(self) -> None:
        """x <- mixed - lr momentum m, then m <- momentum m + (x_before - mixed) / lr."""
        lr = self._start.lr
        if lr:
            corrected = self._start.moved()
            kernels.mix([self.x, self.velocity], [1.0, -lr * self.momentum], out=self.x)
            kernels.mix([self.velocity, corrected], [self.momentum, 1.0 / lr], out=self.velocity)

    def rest(self) -> None:
        """As after a round, with nothing mixed."""
        self.arrive()

    @property
    def state_bytes(self) -> int:
        """Velocity and start."""
        return super().state_bytes + self._start.vector.nbytes

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """The velocity."""
        return {"velocity": self.velocity}


@algorithms.register("decentlam")
@dataclass(frozen=True)
class DecentLaM(Algorithm):
    """Momentum SGD without the bias that momentum adds under different data; no further bytes. Static graphs.

    g~_i = (x_i - sum_j w_ij (x_j - eta g_j)) / eta; m_i <- momentum m_i + g~_i; x_i <- x_i - eta m_i,
    computed as x_i <- sum_j w_ij (x_j - eta g_j) - eta momentum m_i with the m of before.

    Its momentum also acts on the disagreement: x+ = W x + momentum (x - x-), which is stable on every
    static symmetric graph and unstable on schedules that average exactly in finite time if momentum is
    large. ``check`` computes that and refuses. A step with eta = 0 only mixes and leaves m as it is.

    Source: Yuan, Chen, Huang, Zhang, Pan, Xu, Yin, "DecentLaM: Decentralized Momentum SGD for
    Large-batch Deep Training", ICCV 2021, arXiv:2104.11981, algorithm 2.
    """

    budget: ClassVar[int] = 2
    tolerates_loss: ClassVar[bool] = False
    lossless: ClassVar[bool] = True
    needs_lr: ClassVar[bool] = True
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_momentum("decentlam", self.momentum)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compression, weights that let the mean drift, and a momentum that blows up disagreement."""
        require_doubly_stochastic("decentlam", topology)
        require_lossless("decentlam", compressor, "its error would be divided by the learning rate")
        check_stable("decentlam", self.momentum, topology, "algorithm='qg-dsgdm'")

    def check_local(self, local: LocalOptimizer) -> None:
        """Only plain SGD."""
        local.require_plain_sgd("decentlam")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing of ``x``."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """A momentum that starts at zero."""
        return DecentLaMRule(x, self.mixer(x, compressor, degree), self.momentum)
