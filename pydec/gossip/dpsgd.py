"""D-PSGD: average the models themselves with the neighbours' models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.gossip.base import Algorithm, Mixer, Order, algorithms
from pydec.gossip.checks import check_order, require_doubly_stochastic, require_whole_model
from pydec.topology.base import Topology


class AverageMixer(Mixer):
    """x_i <- x_i + sum_j w_ij (Q(x_j) - Q(x_i)), Q the compressor.

    The own packet is subtracted, so with symmetric or doubly stochastic weights the mean over the
    ranks is kept exactly up to rounding, whatever Q does. For a lossless Q this is
    x_i <- sum_j w_ij x_j, computed in that form.
    """

    move_scale = 1.0

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Encode the model itself."""
        start, stop = self.buckets[bucket]
        return self.compressor.keyed(key).encode_into(self.x[start:stop], out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Mix one bucket."""
        if not packets:
            return
        start, stop = self.buckets[bucket]
        x = self.x[start:stop]
        heard = sum(weights)
        if (vectors := self.compressor.views([own, *packets], len(x))) is not None:
            kernels.mix([x, *vectors[1:]], [1.0 - heard, *weights], out=x)
        else:
            self.compressor.accumulate_own(own, -heard, packets, weights, x)


@algorithms.register("dpsgd")
@dataclass(frozen=True)
class DPSGD(Algorithm):
    """Decentralised parallel SGD: local steps, and models averaged with the neighbours'.

    order=cta: x_i <- sum_j w_ij x_j - eta g(x_i); the packets travel while g is computed.
    order=atc: x_i <- sum_j w_ij (x_j - eta g(x_j)); slightly closer ranks, nothing hidden.

    Works on every topology. Under strongly different data per rank the result is biased by
    O(eta) towards each rank's own optimum.

    Source: Lian, Zhang, Zhang, Hsieh, Zhang, Liu, "Can Decentralized Algorithms Outperform
    Centralized Algorithms?", NeurIPS 2017, arXiv:1705.09056, algorithm 1 (which is cta).
    """

    budget: ClassVar[int] = 2
    on_gpu: ClassVar[bool] = True
    order: Order = "cta"

    def __post_init__(self) -> None:
        check_order("dpsgd", self.order)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compressors that drop most of the model, and weights that let the mean drift."""
        require_doubly_stochastic("dpsgd", topology)
        require_whole_model("dpsgd", compressor)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Stateless mixing of ``x``."""
        return AverageMixer(x, compressor, degree)
