"""How long to wait for a round: four times what rounds took, and half as long again for each that failed."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

GROWTH = 1.5
MOST_STEPS = 9  # 1.5^9 = 38 times the base
SAFETY_FACTOR = 4.0
_SAMPLES, _ENOUGH = 128, 8


@dataclass
class Pacemaker:
    """Durations of timers, from measured times that the driver passes in (rule 6).

    Args:
        initial_s: base until there are enough measurements.
        least_s, most_s: limits of the base.
    """

    initial_s: float = 0.5
    least_s: float = 0.05
    most_s: float = 60.0
    _taken: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES), repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.least_s <= self.initial_s <= self.most_s < math.inf:
            raise ValueError(
                "timers need 0 < least_s <= initial_s <= most_s, got "
                f"{self.least_s}, {self.initial_s}, {self.most_s}"
            )

    def measured(self, seconds: float) -> None:
        """One time from a proposal to its commit in the same round; clocks jump, so nonsense is ignored."""
        if 0 <= seconds < math.inf:
            self._taken.append(seconds)

    @property
    def base_s(self) -> float:
        """Four times the 99th percentile of the last 128 measurements, within the limits."""
        if len(self._taken) < _ENOUGH:
            return self.initial_s
        ordered = sorted(self._taken)
        percentile = ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)) - 1)]
        return min(max(SAFETY_FACTOR * percentile, self.least_s), self.most_s)

    def delay_s(self, round: int) -> float:
        """How long a round may take."""
        return float(self.base_s * GROWTH ** min(round, MOST_STEPS))
