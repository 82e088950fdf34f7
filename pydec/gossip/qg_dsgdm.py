"""Quasi-global momentum: a momentum made of what the model did, mixing included."""

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
from pydec.topology.base import Topology


class QuasiGlobalRule(Rule):
    """Momentum that is fed with (x_before - x_after) / lr of whole steps, mixing included."""

    def __init__(self, x: Vector, mixer: Mixer, momentum: float) -> None:
        super().__init__(x, [mixer])
        self.momentum = momentum
        self.velocity = aligned_floats(x.size)
        self._start = Start(x)

    def before(self, lr: float) -> None:
        """Remember where the step started."""
        self._start.take(lr)

    def after(self, lr: float) -> None:
        """x <- x - lr momentum m, after the optimiser's x <- x - lr g."""
        kernels.mix([self.x, self.velocity], [1.0, -lr * self.momentum], out=self.x)

    def arrive(self) -> None:
        """m <- momentum m + (1 - momentum) (x_before - x) / lr; with a rate of 0, m stays."""
        if self._start.lr:
            share = (1.0 - self.momentum) / self._start.lr
            kernels.mix([self.velocity, self._start.moved()], [self.momentum, share], out=self.velocity)

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


@algorithms.register("qg-dsgdm")
@dataclass(frozen=True)
class QGDSGDm(Algorithm):
    """DSGD with quasi-global momentum, which all ranks nearly share; no further bytes. For different data.

    x_i+ = sum_j w_ij (x_j - eta (g_j + momentum m_j));
    m_i <- momentum m_i + (1 - momentum) (x_i - x_i+) / eta.

    Its bias under different data is that of dpsgd at eta, not at eta / (1 - momentum) as dsgdm's. A
    step with eta = 0 only mixes and leaves m as it is. Works on graphs that change. Packets must be
    lossless: what a compressor loses would be divided by eta and enter m.

    Source: Lin, Karimireddy, Stich, Jaggi, "Quasi-Global Momentum: Accelerating Decentralized Deep
    Learning on Heterogeneous Data", ICML 2021, arXiv:2102.04761, algorithm 1.
    """

    budget: ClassVar[int] = 2
    tolerates_loss: ClassVar[bool] = False
    lossless: ClassVar[bool] = True
    needs_lr: ClassVar[bool] = True
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_momentum("qg-dsgdm", self.momentum)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compression, and weights that let the mean drift."""
        require_doubly_stochastic("qg-dsgdm", topology)
        require_lossless("qg-dsgdm", compressor, "its error would be divided by the learning rate")

    def check_local(self, local: LocalOptimizer) -> None:
        """Only plain SGD."""
        local.require_plain_sgd("qg-dsgdm")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing of ``x``."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """A momentum that starts at zero."""
        return QuasiGlobalRule(x, self.mixer(x, compressor, degree), self.momentum)
