"""What two ranks average: a model that others see, and with A2CiD2 its companion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydec.compress.base import Bytes, Compressor, Vector
from pydec.gossip.base import Mixer
from pydec.gossip.memory import aligned_floats


@dataclass(frozen=True)
class Momentum:
    """A2CiD2's constants.

    Args:
        eta: rate at which a model and its companion approach each other, per local step.
        alpha: how far the companion moves in an average, in units of the models' difference.
    """

    eta: float
    alpha: float


class PairMixer(Mixer):
    """The model that others average with, ``public``, and with momentum its companion ``tilde``.

    Average: public += (theirs - own) / 2, tilde += alpha (theirs - own), both as packets say them, so
    that two ranks move by opposite amounts whatever the compressor rounds.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int, *, companion: bool = False) -> None:
        super().__init__(x, compressor, degree)
        self.momentum: Momentum | None = None  # set by the exchange, which knows the graph
        self.public = aligned_floats(x.size)
        self.tilde = aligned_floats(x.size if companion else 0)
        longest = max((stop - start for start, stop in self.buckets), default=0)
        self._difference = aligned_floats(longest if companion else 0)
        self.rebase()

    def rebase(self) -> None:
        """Both start from the model."""
        self.restart()
        if self.tilde.size:
            np.copyto(self.tilde, self.x)

    def restart(self) -> None:
        """The public model starts from the model."""
        np.copyto(self.public, self.x)

    def publish(self) -> None:
        """The model has changed by a local step: so do both."""
        if self.tilde.size:
            for start, stop in self.buckets:
                change = self._difference[: stop - start]
                np.subtract(self.x[start:stop], self.public[start:stop], out=change)
                self.tilde[start:stop] += change
        self.restart()

    def age(self, bucket: int, steps: float) -> None:
        """Let model and companion approach each other for so many steps: d(x - y)/dt = -2 eta (x - y)."""
        if self.momentum and steps > 0.0:
            start, stop = self.buckets[bucket]
            public, tilde = self.public[start:stop], self.tilde[start:stop]
            difference = np.subtract(tilde, public, out=self._difference[: stop - start])
            difference *= np.float32(-0.5 * np.expm1(-2.0 * self.momentum.eta * steps))
            public += difference
            tilde -= difference

    @property
    def state_bytes(self) -> int:
        """Both, and one bucket's difference."""
        return self.public.nbytes + self.tilde.nbytes + self._difference.nbytes

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Encode the public model."""
        start, stop = self.buckets[bucket]
        return self.compressor.keyed(key).encode_into(self.public[start:stop], out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Average one bucket with one other rank."""
        start, stop = self.buckets[bucket]
        (weight,) = weights
        self.compressor.accumulate_own(own, -weight, packets, weights, self.public[start:stop])
        if self.momentum:
            alpha = self.momentum.alpha
            self.compressor.accumulate_own(own, -alpha, packets, [alpha], self.tilde[start:stop])

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The companion; the public model starts from the model again."""
        return {"tilde": self.tilde} if self.tilde.size else {}
