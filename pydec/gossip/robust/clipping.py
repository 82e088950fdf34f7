"""Robust gossip that clips: a neighbour may pull, but no farther than a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec.errors import ConfigError
from pydec.gossip.base import robust_rules
from pydec.gossip.robust.base import Heard, RobustAlgorithm, Weights

_ROUNDING = 1e-9  # of weights that are added in another order


def clipped(heard: Heard, radius: float) -> Weights:
    """w_j min(1, radius / d_j)."""
    shrink = np.divide(
        radius, heard.distances, out=np.ones_like(heard.weights), where=heard.distances > radius
    )
    return np.asarray(heard.weights * shrink)


@robust_rules.register("clipped-gossip")
@dataclass(frozen=True)
class ClippedGossip(RobustAlgorithm):
    """x_i <- x_i + sum_j w_ij clip(x_j - x_i, radius).

    Args:
        f: neighbours that may be anything; without a radius it decides that.
        order: see ``RobustAlgorithm``.
        radius: fixed; 0 takes, in every round, sqrt(sum of w_ij d_ij^2 over the closest neighbours without
            the last b_i of weight, divided by b_i), b_i the weight that f liars can have: the paper's radius
            with the closest in place of the honest ones.

    Breakdown: at least f + 1 neighbours; the honest graph must be connected. With a fixed radius that is
    small beside the local steps it survives a majority of liars around a rank, and mixes slowly. The default
    where some rank hears 2 f others or fewer, as on a ring.

    Source: He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", 2022,
    arXiv:2202.01545, equation (3) and theorem III.
    """

    name: ClassVar[str] = "clipped-gossip"
    condition: ClassVar[str] = "f + 1"
    radius: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.radius >= 0:
            raise ConfigError(f"clipped-gossip.radius must be above 0, or 0 to follow f, got {self.radius}")

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return f + 1 if f else 0

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        if self.radius:
            return clipped(heard, self.radius)
        if not heard.f:
            return heard.weights
        suspect = heard.suspect
        order = np.argsort(heard.distances, kind="stable")
        until = np.cumsum(heard.weights[order])
        close = order[until <= until[-1] - suspect + _ROUNDING]
        radius = np.sqrt((heard.weights[close] * heard.distances[close] ** 2).sum() / suspect)
        return clipped(heard, float(radius))


@robust_rules.register("cs-plus")
@dataclass(frozen=True)
class CSPlus(RobustAlgorithm):
    """CS+: x_i <- x_i + eta sum_j w_ij clip(x_j - x_i, tau_i), tau_i a distance that 2 f neighbours exceed.

    tau_i is the largest distance of a neighbour such that those that are strictly farther have a weight of at
    least 2 b_i, b_i the weight that f liars can have: with equal weights the (2 f + 1)-th largest distance.
    The default where every rank hears more than 2 f others, and some no more than 3 f.

    Args:
        f: neighbours that may be anything.
        order: see ``RobustAlgorithm``.
        eta: step of the mixing.

    Breakdown: at least 2 f + 1 neighbours. The source shows that no rule of this form survives everywhere
    once f is about half the algebraic connectivity of the honest graph (edges of weight 1), and that this one
    comes near; ``pydec train --byzantine`` says what it is.

    Source: Gaucher, Dieuleveut, Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML
    2025, arXiv:2410.10418.
    """

    name: ClassVar[str] = "cs-plus"
    condition: ClassVar[str] = "2 f + 1"
    eta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.eta <= 1.0:
            raise ConfigError(f"cs-plus.eta must be in (0, 1], got {self.eta}")

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``."""
        return 2 * f + 1 if f else 0

    def coefficients(self, heard: Heard) -> Weights:
        """See ``RobustAlgorithm``."""
        farther = (heard.distances > heard.distances[:, None]) @ heard.weights
        fits = heard.distances[farther >= 2 * heard.suspect - _ROUNDING]
        return self.eta * clipped(heard, float(fits.max()) if len(fits) else 0.0)
