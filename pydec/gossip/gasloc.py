"""GASLoC: one momentum that accelerates both the outer step and the gossip."""

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
from pydec.gossip.checks import check_momentum, require_doubly_stochastic, require_whole_model
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Rule
from pydec.gossip.stability import check_stable
from pydec.topology.base import Topology


class GASLoCRule(Rule):
    """Sends y, and adds momentum (y - y of the round before) to what mixing makes of it."""

    def __init__(self, x: Vector, mixer: Mixer, outer_lr: float, momentum: float) -> None:
        super().__init__(x, [mixer])
        self.outer_lr = outer_lr
        self.momentum = momentum
        self.anchor = aligned_floats(x.size)
        self.previous = aligned_floats(x.size)
        self.rebase()

    def rebase(self) -> None:
        """Start from here, at rest."""
        np.copyto(self.anchor, self.x)
        np.copyto(self.previous, self.x)

    def depart(self) -> None:
        """y = anchor + outer_lr (x - anchor), in x; kept in the anchor's place, which has served."""
        np.subtract(self.x, self.anchor, out=self.x)
        kernels.mix([self.anchor, self.x], [1.0, self.outer_lr], out=self.x)
        np.copyto(self.anchor, self.x)

    def arrive(self) -> None:
        """x <- mixed + momentum (y - y-); y- <- y."""
        np.subtract(self.anchor, self.previous, out=self.previous)
        kernels.mix([self.x, self.previous], [1.0, self.momentum], out=self.x)
        np.copyto(self.previous, self.anchor)
        np.copyto(self.anchor, self.x)

    def own_state(self) -> Mapping[str, NDArray[np.float32]]:
        """Anchor and the y of the round before."""
        return {"anchor": self.anchor, "previous": self.previous}


@algorithms.register("gasloc")
@dataclass(frozen=True)
class GASLoC(Algorithm):
    """Gossip DiLoCo whose momentum also accelerates the mixing. For slow links and static symmetric graphs.

    y_i = x_i + outer_lr (inner(x_i) - x_i); x_i <- sum_j w_ij y_j + momentum (y_i - y_i-).

    The mean over the ranks follows Nesterov DiLoCo. Momentum acts on the disagreement, too: on a static
    symmetric graph (1 - sqrt(gap))^2 mixes at a rate of 1 - sqrt(gap) in place of 1 - gap, but on
    finite-time schedules a large one is unstable. ``check`` computes the limit and refuses. Use with local
    steps.

    Source: Cagnasso, Belilovsky, Oyallon, GASLoC, 2026, arXiv:2606.11081.
    """

    budget: ClassVar[int] = 2
    outer_lr: float = 0.7
    momentum: float = 0.4

    def __post_init__(self) -> None:
        check_momentum("gasloc", self.momentum)
        if not 0.0 < self.outer_lr <= 2.0:
            raise ConfigError(f"gasloc.outer_lr must be in (0, 2], got {self.outer_lr}")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """As for dpsgd, and refuse a momentum that blows up disagreement."""
        require_doubly_stochastic("gasloc", topology)
        require_whole_model("gasloc", compressor)
        check_stable("gasloc", self.momentum, topology, "algorithm='gossip-diloco'")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Plain mixing of ``x``."""
        return AverageMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """At rest."""
        return GASLoCRule(x, self.mixer(x, compressor, degree), self.outer_lr, self.momentum)
