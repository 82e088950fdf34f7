"""What goes wrong in a local cluster, by its seed: messages lost or late, ranks killed or stopped."""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import inf

from pydec.errors import ConfigError

EAGER_BYTES = 4096  # MPI's shared-memory eager limit; larger sends wait for their receiver


@dataclass(frozen=True)
class Faults:
    """What the network does to messages; probabilities are per message, times in seconds.

    Args:
        delay_s: seconds that a message takes, or (least, most), drawn uniformly.
        loss: probability that a message never arrives.
        duplicate: probability that it arrives twice.
        reorder: probability that it is held back while later ones with its tag pass.
        bytes_per_s: what a rank's outgoing link carries, one message after the other.
    """

    delay_s: tuple[float, float] = (0.0, 0.0)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    bytes_per_s: float = inf

    def __post_init__(self) -> None:
        low_s, high_s = self.delay_s
        if not 0.0 <= low_s <= high_s < inf:
            raise ConfigError(f"delay_s must be finite with 0 <= least <= most, got {self.delay_s}")
        for name in ("loss", "duplicate", "reorder"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must be a probability in [0, 1], got {getattr(self, name)}")
        if not self.bytes_per_s > 0.0:
            raise ConfigError(f"bytes_per_s must be above 0, got {self.bytes_per_s}")

    @property
    def held_back_s(self) -> float:
        """Longest extra delay of a message that is held back."""
        return 10 * self.delay_s[1] or 1e-3


class Killed(BaseException):
    """Raised in the thread of a rank that the cluster has killed; nobody catches it."""


@dataclass(frozen=True)
class Death:
    """When a rank is killed, as by SIGKILL, and how long the others take to know.

    Messages of up to ``EAGER_BYTES`` that were not taken by then reach each receiver, or none of them
    does, as the seed decides; longer ones are lost.

    Args:
        at_s: moment on the virtual clock, or (least, most), drawn from the seed.
        noticed_s: (least, most) seconds until another rank knows, drawn for each.
    """

    at_s: float | tuple[float, float]
    noticed_s: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        for name, (least, most) in (("at_s", self._range), ("noticed_s", self.noticed_s)):
            if not 0.0 <= least <= most < inf:
                raise ConfigError(f"{name} must be finite with 0 <= least <= most, got {(least, most)}")

    @property
    def _range(self) -> tuple[float, float]:
        return self.at_s if isinstance(self.at_s, tuple) else (self.at_s, self.at_s)

    def moment_s(self, seed: int, rank: int) -> float:
        """The moment, in seconds on the virtual clock."""
        return random.Random(f"{seed}/{rank}/moment").uniform(*self._range)


@dataclass(frozen=True)
class Pause:
    """When a rank stands still, as between SIGSTOP and SIGCONT; what is sent to it waits meanwhile.

    Args:
        at_s: moment on the virtual clock.
        for_s: seconds that it lasts.
    """

    at_s: float
    for_s: float

    def __post_init__(self) -> None:
        for name, value in (("at_s", self.at_s), ("for_s", self.for_s)):
            if not 0.0 <= value < inf:
                raise ConfigError(f"{name} must be finite and at least 0, got {value}")

    @property
    def end_s(self) -> float:
        """Moment at which it goes on."""
        return self.at_s + self.for_s
