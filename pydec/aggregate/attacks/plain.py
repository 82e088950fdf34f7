"""Attacks that need no knowledge of others, or only of their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pydec.aggregate.attacks.base import Attack, Scene, Vector, attacks
from pydec.errors import ConfigError


@attacks.register("sign-flip")
@dataclass(frozen=True)
class SignFlip(Attack):
    """Send minus the honest mean, times ``scale``."""

    scale: float = 1.0

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        return np.float32(-self.scale) * scene.mean()


@attacks.register("bit-flip")
@dataclass(frozen=True)
class BitFlip(Attack):
    """Send minus the own vector: every sign bit flipped."""

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        return -scene.own


@attacks.register("gaussian")
@dataclass(frozen=True)
class Gaussian(Attack):
    """Send noise, N(0, deviation^2) in every coordinate."""

    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not self.deviation > 0:
            raise ConfigError(f"deviation must be above 0, got {self.deviation}")

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        noise = scene.draw.standard_normal(scene.own.size, dtype=np.float32)
        return np.float32(self.deviation) * noise


@attacks.register("label-flip")
@dataclass(frozen=True)
class LabelFlip(Attack):
    """Train on labels c - 1 - y in place of y, c the number of classes, and send the model as it is."""

    flips_labels: ClassVar[bool] = True

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        return scene.own.copy()


@attacks.register("huge")
@dataclass(frozen=True)
class Huge(Attack):
    """Send one huge value in every coordinate."""

    value: float = 1e30

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        return np.full(scene.own.size, self.value, np.float32)


@attacks.register("nan")
@dataclass(frozen=True)
class NotANumber(Attack):
    """Send NaN; where the compressor has no code for it, bytes that are no packet."""

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        return np.full(scene.own.size, np.nan, np.float32)


@attacks.register("stale")
@dataclass(frozen=True)
class Stale(Attack):
    """Send the own vector of ``delay`` to 2 ``delay`` rounds ago, as if it were new."""

    delay: int = 1000

    def __post_init__(self) -> None:
        if self.delay < 1:
            raise ConfigError(f"delay must be at least 1 round, got {self.delay}")

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        memory = scene.memory
        if "sent" not in memory:
            memory.update(sent=scene.own.copy(), held=scene.own.copy(), since=scene.round)
        elif scene.round - memory["since"] >= self.delay:
            memory.update(sent=memory["held"], held=scene.own.copy(), since=scene.round)
        return np.array(memory["sent"])
