"""Stochastic gradient push: sums and weights travel together, so directed and leaky links do no harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import FrameError
from pydec.gossip.base import Algorithm, Mixer, Order, algorithms
from pydec.gossip.checks import check_order, require_whole_model
from pydec.gossip.memory import divide, floats_beside, subtract
from pydec.gossip.rule import Rule
from pydec.gossip.weighted import PREFIX_BYTES, read_weight, write_weight
from pydec.topology.base import Topology

_LEAST, _MOST = 2.0**-40, 2.0**40  # of a weight; those of a working cluster stay near 1


class PushSumMixer(Mixer):
    """Push-sum on numerators s and a weight w per bucket; the vector x holds the ratio z = s / w.

    s_i <- sum_j p_ij s_j, w_i <- sum_j p_ij w_j, with columns of p that sum to 1. The weight of a
    packet that is missing goes to the own s and w alike, so z stays a weighted average of models.
    """

    prefix: ClassVar[int] = PREFIX_BYTES

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        super().__init__(x, compressor, degree)
        self.numerator: Vector = floats_beside(x, len(x))
        self.weights = [1.0] * len(self.buckets)
        self._total = 1.0
        longest = max((stop - start for start, stop in self.buckets), default=0)
        self._before: Vector = floats_beside(x, longest)
        self.numerator[:] = x

    @property
    def state_bytes(self) -> int:
        """Numerators and the ratio of one bucket."""
        return super().state_bytes + self._before.nbytes

    def rebase(self) -> None:
        """Start from z with weight 1."""
        self.numerator[:] = self.x
        self.weights = [1.0] * len(self.buckets)

    def moved(self) -> None:
        """A local step has changed z: s changes by as much, s <- s + (z - s / w), and z <- s / w."""
        for (start, stop), weight in zip(self.buckets, self.weights, strict=True):
            x, numerator = self.x[start:stop], self.numerator[start:stop]
            if weight == 1.0:
                numerator[:] = x
                continue
            change = divide(numerator, weight, self._before[: stop - start])
            numerator += subtract(x, change, change)
            divide(numerator, weight, x)

    def open(self, total: float) -> None:
        """Remember what the own weight and those of all neighbours add up to."""
        self._total = total

    def capacity(self, bucket: int) -> int:
        """The weight and the payload."""
        return PREFIX_BYTES + super().capacity(bucket)

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Weight and numerators."""
        start, stop = self.buckets[bucket]
        write_weight(out, self.weights[bucket])
        compressor = self.compressor.keyed(key)
        return PREFIX_BYTES + compressor.encode_into(self.numerator[start:stop], out[PREFIX_BYTES:])

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Mix numerators and weights of one bucket, and form the ratio."""
        start, stop = self.buckets[bucket]
        x, numerator = self.x[start:stop], self.numerator[start:stop]
        kept = self._total - sum(weights)
        mixed = kept * self.weights[bucket]
        for packet, weight in zip(packets, weights, strict=True):
            mixed += weight * _weight(packet)
        bodies = [packet[PREFIX_BYTES:] for packet in packets]
        if (vectors := self.compressor.views([own[PREFIX_BYTES:], *bodies], len(x))) is not None:
            kernels.push_sum_mix([numerator, *vectors[1:]], [kept, *weights], mixed, numerator, x)
        else:
            self.compressor.accumulate_own(own[PREFIX_BYTES:], kept - 1.0, bodies, weights, numerator)
            kernels.push_sum_mix([numerator], [1.0], mixed, numerator, x)
        self.weights[bucket] = mixed

    def alone(self, bucket: int) -> None:
        """Nobody is heard: what was sent away leaves, and the ratio stays."""
        if self._total != 1.0:
            start, stop = self.buckets[bucket]
            numerator = self.numerator[start:stop]
            kernels.mix([numerator], [self._total], out=numerator)
            self.weights[bucket] *= self._total

    def decodes(self, bucket: int, body: Bytes) -> bool:
        """Whether weight and payload are well formed."""
        try:
            _weight(body)
        except FrameError:
            return False
        return super().decodes(bucket, body[PREFIX_BYTES:])

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The numerators."""
        return {"numerator": self.numerator}


def _weight(packet: Bytes) -> float:
    return read_weight(packet, _LEAST, _MOST)


class PushSumRule(Rule):
    """Carries the local step over to the numerators."""

    def __init__(self, x: Vector, mixer: PushSumMixer) -> None:
        super().__init__(x, [mixer])
        self._mixer = mixer

    def rebase(self) -> None:
        """See ``PushSumMixer.rebase``."""
        self._mixer.rebase()

    def after(self, lr: float) -> None:
        """See ``PushSumMixer.moved``."""
        self._mixer.moved()

    def numbers(self) -> dict[str, float]:
        """The weight of every bucket."""
        return {f"weight.{bucket}": weight for bucket, weight in enumerate(self._mixer.weights)}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._mixer.weights = [numbers[f"weight.{b}"] for b in range(len(self._mixer.weights))]


@algorithms.register("sgp")
@dataclass(frozen=True)
class SGP(Algorithm):
    """Stochastic gradient push: averaging that is right on directed graphs whose columns alone sum to 1.

    order=atc: s_i <- sum_j p_ij (s_j - eta g(z_j)), w_i <- sum_j p_ij w_j, z_i = s_i / w_i; the weight
    travels in the packet. order=cta is its overlapped form (OSGP with a delay of one step): what was
    sent after a step is mixed after the next gradient, so packets travel while it is computed.

    The parameters hold z; any torch optimiser takes the local step. On doubly stochastic graphs w stays
    1 and it is dpsgd. The sums of s and w over the ranks are conserved.

    Source: Assran, Loizou, Ballas, Rabbat, "Stochastic Gradient Push for Distributed Deep Learning",
    ICML 2019, arXiv:1811.10792, algorithms 1 and 2.
    """

    budget: ClassVar[int] = 3
    on_gpu: ClassVar[bool] = True
    order: Order = "atc"

    def __post_init__(self) -> None:
        check_order("sgp", self.order)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compressors that drop most of the model."""
        require_whole_model("sgp", compressor)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> PushSumMixer:
        """Numerators equal to x, weight 1."""
        return PushSumMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """The parameters hold the ratio."""
        return PushSumRule(x, self.mixer(x, compressor, degree))
