"""DiLoCo: many local steps, then an outer Nesterov step on what they did; with an exact mean or by gossip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm, Mixer, algorithms
from pydec.gossip.checks import (
    check_momentum,
    require_doubly_stochastic,
    require_lossless,
    require_whole_model,
)
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Rule
from pydec.topology.base import Topology


@dataclass(frozen=True)
class OuterStep:
    """Nesterov's step on what the local steps did."""

    lr: float
    momentum: float

    def take(self, anchor: Vector, delta: Vector, velocity: Vector) -> None:
        """m <- momentum m + d; d <- anchor - lr (d + momentum m): the new model, in the delta's place."""
        kernels.mix([velocity, delta], [self.momentum, 1.0], out=velocity)
        kernels.mix([anchor, delta, velocity], [1.0, -self.lr, -self.lr * self.momentum], out=delta)


class AnchoredRule(Rule):
    """Local steps that start from an anchor, the model of the last round, and an outer momentum at rest."""

    def __init__(self, x: Vector, mixer: Mixer) -> None:
        super().__init__(x, [mixer])
        self.anchor = aligned_floats(x.size)
        self.velocity = aligned_floats(x.size)
        self.rebase()

    def rebase(self) -> None:
        """The next local steps start from here."""
        np.copyto(self.anchor, self.x)

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Anchor and outer momentum."""
        return {"anchor": self.anchor, "velocity": self.velocity}


class OuterRule(AnchoredRule):
    """Nesterov's outer step from the anchor, before the mixing."""

    def __init__(self, x: Vector, mixer: Mixer, outer: OuterStep) -> None:
        super().__init__(x, mixer)
        self._outer = outer

    def depart(self) -> None:
        """d = anchor - x; m <- momentum m + d; x <- anchor - outer_lr (d + momentum m)."""
        np.subtract(self.anchor, self.x, out=self.x)
        self._outer.take(self.anchor, self.x, self.velocity)

    def arrive(self) -> None:
        """The mixed model is the next anchor."""
        self.rebase()


@dataclass(frozen=True)
class _Outer(Algorithm):
    """What DiLoCo's forms share."""

    budget: ClassVar[int] = 2
    name: ClassVar[str] = ""
    outer_lr: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_momentum(self.name, self.momentum)
        if not 0.0 < self.outer_lr <= 2.0:
            raise ConfigError(f"{self.name}.outer_lr must be in (0, 2], got {self.outer_lr}")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing of ``x``."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """An outer momentum that starts at zero."""
        return OuterRule(x, self.mixer(x, compressor, degree), OuterStep(self.outer_lr, self.momentum))


@algorithms.register("diloco")
@dataclass(frozen=True)
class DiLoCo(_Outer):
    """Many local steps, then an outer Nesterov step on their exact mean, which gossip forms in finite time.

    With theta the common model and theta_i what the local steps made of it: d = theta - mean theta_i;
    m <- momentum m + d; theta <- theta - outer_lr (d + momentum m). Every rank takes that step with its
    own d and m and the results are averaged exactly, over the rounds of a finite-time schedule one after
    the other: the same by linearity, without an all-reduce. Use with local steps (50 to 500).

    Source: Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen, "DiLoCo: Distributed
    Low-Communication Training of Language Models", 2023, arXiv:2311.08105, algorithm 1.
    """

    name: ClassVar[str] = "diloco"
    tolerates_loss: ClassVar[bool] = False
    lossless: ClassVar[bool] = True

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse schedules that do not average exactly, and compression."""
        require_lossless("diloco", compressor, "the mean of the outer step is exact")
        exact = topology.finite_time
        if exact is None or (topology.period and exact % topology.period):
            raise ConfigError(
                f"diloco averages exactly in every outer step, and {topology.name} of {topology.size} ranks "
                "does not in whole periods; use topology base-k or complete, or algorithm='gossip-diloco'"
            )

    def rounds(self, topology: Topology) -> int:
        """As many as the exact mean takes."""
        return max(1, topology.finite_time or 1)


@algorithms.register("gossip-diloco")
@dataclass(frozen=True)
class GossipDiLoCo(_Outer):
    """DiLoCo with one round of gossip in place of the mean; momentum spares the disagreement. For slow links.

    d_i = theta_i - inner(theta_i); m_i <- momentum m_i + d_i;
    theta_i <- sum_j w_ij (theta_j - outer_lr (d_j + momentum m_j)).

    The mean over the ranks follows DiLoCo's trajectory where gradients are linear, on every doubly
    stochastic graph, and exactly on the complete one. The disagreement is only mixed, so finite-time
    schedules stay exact. Under strongly different data use momentum=0.5 or less.

    Source: the outer step is that of Douillard et al., "DiLoCo", 2023, arXiv:2311.08105, algorithm 1; gossip
    in place of its mean as in Wang, Tantia, Ballas, Rabbat, "SlowMo", ICLR 2020, arXiv:1910.00643, section 2.
    """

    name: ClassVar[str] = "gossip-diloco"

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """As for dpsgd."""
        require_doubly_stochastic("gossip-diloco", topology)
        require_whole_model("gossip-diloco", compressor)
