"""What no rule should see: vectors that are not finite, too large, or too old."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError

LARGEST = 1e18
"""Distance beyond which squares overflow float32; no two honest models are so far apart."""


@dataclass
class Counts:
    """What was left out so far, over all calls.

    Attributes:
        nonfinite: vectors with a NaN or an infinity.
        over_norm: vectors beyond ``Screen.max_norm``.
        stale: vectors older than ``Screen.max_age``.
        malformed: packets that hold no vector.
        kept_own: calls that left too few, and gave back the own model.
        given: weight that the graph gave to the vectors that rules of gossip saw, over all rounds; 0 of rules
            on sets.
        taken: what those left of it.
    """

    nonfinite: int = 0
    over_norm: int = 0
    stale: int = 0
    malformed: int = 0
    kept_own: int = 0
    given: float = field(default=0.0, compare=False)
    taken: float = field(default=0.0, compare=False)

    def add(self, other: Counts) -> None:
        """Add another's numbers."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass(frozen=True)
class Screen:
    """Which vectors count.

    Args:
        max_norm: largest distance to the own model; without one, largest norm.
        max_age: how many rounds old a vector may be; None for any.

    Raises:
        ConfigError: a bound that is not positive, or an age below 0.
    """

    max_norm: float = LARGEST
    max_age: int | None = None

    def __post_init__(self) -> None:
        if not self.max_norm > 0 or math.isinf(self.max_norm):
            raise ConfigError(f"max_norm must be above 0 and finite, got {self.max_norm}")
        if self.max_age is not None and self.max_age < 0:
            raise ConfigError(f"max_age must be at least 0 rounds, got {self.max_age}")

    def fresh(self, n: int, ages: Sequence[int] | None, counts: Counts) -> list[int]:
        """The numbers of the vectors that are not too old.

        Raises:
            ValueError: not as many ages as vectors.
        """
        if ages is None:
            return list(range(n))
        if len(ages) != n:
            raise ValueError(f"ages must be one number for each of {n} vectors, got {len(ages)}")
        kept = [k for k, age in enumerate(ages) if self.max_age is None or age <= self.max_age]
        counts.stale += n - len(kept)
        return kept

    @staticmethod
    def proven(squared: NDArray[np.float64], finite: NDArray[np.bool_]) -> int:
        """How many vectors no honest rank has sent: those not finite, or farther than ``LARGEST``.

        Each was one of the f that may be anything, so at most f less that many are among the rest. An old
        vector, or one beyond a smaller ``max_norm``, may be an honest rank's and proves nothing.

        Args:
            squared, finite: as for ``sound``.
        """
        with np.errstate(invalid="ignore"):
            return int((~finite | ~(squared <= LARGEST**2)).sum())

    def sound(
        self, squared: NDArray[np.float64], finite: NDArray[np.bool_], counts: Counts
    ) -> NDArray[np.bool_]:
        """Which vectors are finite and not too far.

        Args:
            squared: squared distances to the own model, or squared norms.
            finite: whether all entries of a vector are.
            counts: updated.
        """
        with np.errstate(invalid="ignore"):
            near = squared <= self.max_norm**2
        counts.nonfinite += int((~finite).sum())
        counts.over_norm += int((finite & ~near).sum())
        return np.asarray(finite & near)
