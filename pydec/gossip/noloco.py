"""NoLoCo: an outer momentum on pairs' deltas that also pulls the pairs together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec import kernels
from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm, Mixer, algorithms
from pydec.gossip.checks import check_momentum, require_doubly_stochastic, require_whole_model
from pydec.gossip.diloco import AnchoredRule
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.rule import Rule
from pydec.gossip.stability import Companion, growth
from pydec.topology.base import Matrix, Topology


def pulled(momentum: float, pull: float) -> Companion:
    """d+ = momentum d - pull (phi - W phi), phi+ = phi + d+, on (phi, d): see ``stability.growth``."""

    def companion(w: Matrix) -> Matrix:
        one = np.eye(len(w))
        force = pull * (one - w)
        return np.block([[one - force, momentum * one], [-force, momentum * one]])

    return companion


class NoLoCoRule(AnchoredRule):
    """Sends z = outer_lr D + pull phi, whose mixture holds both of the paper's means; phi is the anchor."""

    def __init__(self, x: Vector, mixer: Mixer, outer_lr: float, momentum: float, pull: float) -> None:
        super().__init__(x, mixer)
        self.outer_lr, self.momentum, self.pull = outer_lr, momentum, pull

    def depart(self) -> None:
        """x <- outer_lr (x - phi) + pull phi."""
        kernels.mix([self.x, self.anchor], [self.outer_lr, self.pull - self.outer_lr], out=self.x)

    def arrive(self) -> None:
        """d <- momentum d + mixed - pull phi; phi <- phi + d; x <- phi."""
        kernels.mix([self.velocity, self.x, self.anchor], [self.momentum, 1.0, -self.pull], out=self.velocity)
        np.add(self.anchor, self.velocity, out=self.anchor)
        np.copyto(self.x, self.anchor)


@algorithms.register("noloco")
@dataclass(frozen=True)
class NoLoCo(Algorithm):
    """DiLoCo by random pairs: nobody waits for all, and a pull holds the ranks together. For slow links.

    With D_i = inner(phi_i) - phi_i: d_i <- momentum d_i + outer_lr sum_j w_ij D_j
    - pull (phi_i - sum_j w_ij phi_j); phi_i <- phi_i + d_i. Both sums travel as one vector,
    outer_lr D + pull phi. Use with topology random-matching and local steps (50).

    The mean over the ranks follows the outer momentum on the mean of D. For random pairs disagreement
    dies out, in the mean of its square, if and only if 0 < pull < 2 (1 - momentum^2); on other schedules
    ``check`` computes its growth and refuses. The default of 0.3 is the pull at which pairs agree fastest
    with a momentum of 0.5.

    Source: Kolehmainen, Blagoev, Donaghy, Ersoy, Nies, "NoLoCo: No-all-reduce Low Communication Training
    Method for Large Models", 2025, arXiv:2506.10911, section 3; the bound is ours.
    """

    budget: ClassVar[int] = 2
    outer_lr: float = 0.7
    momentum: float = 0.5
    pull: float = 0.3

    def __post_init__(self) -> None:
        check_momentum("noloco", self.momentum)
        if not 0.0 < self.outer_lr <= 2.0:
            raise ConfigError(f"noloco.outer_lr must be in (0, 2], got {self.outer_lr}")
        limit = 2 * (1 - self.momentum**2)
        if not 0.0 < self.pull < limit:
            raise ConfigError(
                f"noloco.pull must be in (0, 2 (1 - momentum^2)) = (0, {limit:g}) for momentum="
                f"{self.momentum:g}, or pairs drift apart; got {self.pull}"
            )

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """As for dpsgd, and refuse schedules on which disagreement grows."""
        require_doubly_stochastic("noloco", topology)
        require_whole_model("noloco", compressor)
        factor = growth(topology, pulled(self.momentum, self.pull))
        if factor >= 1.0:
            raise ConfigError(
                f"noloco's momentum of {self.momentum:g} and pull of {self.pull:g} make the ranks' "
                f"disagreement grow by {factor:.3g} times per round on {topology.name} of {topology.size} "
                "ranks; use topology random-matching, a smaller pull, or algorithm='gossip-diloco'"
            )

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing of what the rule puts in ``x``."""
        mixer = AverageMixer(x, compressor, degree)
        mixer.move_scale = 0.0  # a packet is not the model
        return mixer

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """At rest."""
        return NoLoCoRule(x, self.mixer(x, compressor, degree), self.outer_lr, self.momentum, self.pull)
