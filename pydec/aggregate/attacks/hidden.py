"""Attacks that hide among the honest vectors: A Little Is Enough, inner products, mimicry, equivocation."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pydec.aggregate.attacks.base import Attack, Scene, Vector, attacks
from pydec.errors import ConfigError

_DEFAULT_Z = 1.5  # ByzFL's; the formula gives 0 for small neighbourhoods


def largest_z(n: int, f: int) -> float:
    """Phi^-1((n - f - s) / (n - f)), s = floor(n / 2 + 1) - f: so far from the mean a lie has supporters.

    Source: Baruch, Baruch, Goldberg, "A Little Is Enough", NeurIPS 2019, arXiv:1902.06156, algorithm 3.
    At least 0.
    """
    supporters = n // 2 + 1 - f
    share = (n - f - supporters) / max(1, n - f)
    return NormalDist().inv_cdf(share) if 0.5 < share < 1.0 else 0.0


@attacks.register("alie")
@dataclass(frozen=True)
class ALittleIsEnough(Attack):
    """Send mean - z deviation of the honest vectors, coordinate by coordinate.

    Args:
        z: how far; 0 takes the paper's largest z for n vectors and f liars.

    Source: Baruch, Baruch, Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed
    Learning", NeurIPS 2019, arXiv:1902.06156, algorithm 3.
    """

    z: float = _DEFAULT_Z

    def __post_init__(self) -> None:
        if not self.z >= 0:
            raise ConfigError(f"z must be above 0, or 0 for the paper's, got {self.z}")

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        z = self.z or largest_z(scene.n, scene.f)
        return scene.mean() - np.float32(z) * scene.deviation()


@attacks.register("ipm")
@dataclass(frozen=True)
class InnerProduct(Attack):
    """Inner-product manipulation, "fall of empires": send minus ``eps`` times the honest mean.

    Source: Xie, Koyejo, Gupta, "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
    Manipulation", UAI 2019, arXiv:1903.03936.
    """

    eps: float = 0.1

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        return np.float32(-self.eps) * scene.mean()


@attacks.register("mimic")
@dataclass(frozen=True)
class Mimic(Attack):
    """Copy the honest vector that lies farthest along the direction of largest variance.

    Oja's rule follows that direction for ``warmup`` rounds; then the one that is copied stays.

    Source: Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
    2022, arXiv:2006.09365, section 4 and appendix B.
    """

    warmup: int = 20

    def __post_init__(self) -> None:
        if self.warmup < 1:
            raise ConfigError(f"warmup must be at least 1 round, got {self.warmup}")

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        memory = scene.memory
        rounds = memory.get("rounds", 0)
        if rounds < self.warmup or memory["copied"] >= len(scene.honest):
            differences = scene.honest - scene.mean()
            direction = memory.get("direction")
            if direction is None:
                direction = scene.draw.standard_normal(scene.own.size, dtype=np.float32)
            along = differences @ direction
            direction = direction / np.linalg.norm(direction) + _unit(along @ differences)
            memory["direction"] = _unit(direction)
            memory["copied"] = int(np.argmax(np.abs(differences @ memory["direction"])))
            memory["rounds"] = rounds + 1
        return np.array(scene.honest[memory["copied"]])


@attacks.register("equivocation")
@dataclass(frozen=True)
class Equivocation(Attack):
    """Send mean + z deviation to every second listener and mean - z deviation to the others."""

    z: float = _DEFAULT_Z

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        z = self.z if scene.place % 2 else -self.z
        return scene.mean() + np.float32(z) * scene.deviation()


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    return np.asarray(vector / np.float32(length)) if length > 0 else vector
