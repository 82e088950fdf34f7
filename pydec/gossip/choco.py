"""CHOCO-SGD: gossip on public estimates that compressed differences keep up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.compress.gpu import GpuQuantiser
from pydec.compress.quantiser import Quantiser
from pydec.errors import ConfigError
from pydec.gossip.base import AfterDeath, Algorithm, Mixer, Order, algorithms
from pydec.gossip.checks import BIG, check_order
from pydec.gossip.memory import floats_beside, subtract
from pydec.topology.base import Topology


class ChocoMixer(Mixer):
    """The two estimates of CHOCO: ``estimate`` is x_hat_i, ``mixed`` is sum_j w_ij x_hat_j.

    One buffer holds the neighbours' weighted estimates, so memory does not depend on their
    number; that is why the graph must not change.
    """

    stages: ClassVar[bool] = True
    """Whether a bucket's difference is written to memory before it is encoded."""

    def __init__(self, x: Vector, compressor: Compressor, degree: int, gamma: float) -> None:
        super().__init__(x, compressor, degree)
        self.gamma = gamma
        self.estimate: Vector = floats_beside(x, len(x))
        self.mixed: Vector = floats_beside(x, len(x))
        self._rank = 0
        self._topology: Topology | None = None
        self._still = 0.0
        longest = max((stop - start for start, stop in self.buckets), default=0) if self.stages else 0
        self._difference: Vector = floats_beside(x, longest)

    def place(self, rank: int, topology: Topology) -> None:
        """The weights of all rounds are those of the first."""
        self._rank, self._topology = rank, topology

    def lose(self, peer: int) -> None:
        """Its estimate stands still from here on, as if it sent zeros, until ``restart``."""
        assert self._topology is not None
        self._still += self._topology.row(self._rank, 0)[1].get(peer, 0.0)

    def _kept(self, weights: Sequence[float]) -> float:
        """Weight of the own packet: what is left of 1, but for those that stand still."""
        return 1.0 - sum(weights) - self._still

    @property
    def state_bytes(self) -> int:
        """Both estimates and, where it is staged, one bucket's difference."""
        return super().state_bytes + self._difference.nbytes

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Encode x - x_hat."""
        start, stop = self.buckets[bucket]
        difference = self._difference[: stop - start]
        subtract(self.x[start:stop], self.estimate[start:stop], difference)
        return self.compressor.keyed(key).encode_into(difference, out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Update both estimates, then move x towards its neighbours' estimates."""
        start, stop = self.buckets[bucket]
        x, estimate, mixed = self.x[start:stop], self.estimate[start:stop], self.mixed[start:stop]
        self.compressor.accumulate_own(own, self._kept(weights), packets, weights, mixed)
        self.compressor.accumulate_own(own, 1.0, [], [], estimate)
        kernels.mix([x, mixed, estimate], [1.0, self.gamma, -self.gamma], out=x)

    def restart(self) -> None:
        """What the dead were thought to be is still in ``mixed``: estimate anew, from 0, as all others do."""
        self.estimate[:] = 0.0
        self.mixed[:] = 0.0
        self._still = 0.0

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The two estimates."""
        return {"estimate": self.estimate, "mixed": self.mixed}


class QuantisedChocoMixer(ChocoMixer):
    """The same bits in two passes over memory instead of five, for compressors that quantise in blocks.

    A round reads 20 and writes 12 bytes an element beside the packets' bytes; step by step it is 32 and 20.
    """

    stages: ClassVar[bool] = False
    compressor: Quantiser

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Encode x - x_hat without writing it to memory."""
        start, stop = self.buckets[bucket]
        compressor = self.compressor.keyed(key)
        return compressor.encode_difference_into(self.x[start:stop], self.estimate[start:stop], out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Update both estimates and x, element by element."""
        start, stop = self.buckets[bucket]
        state = self.x[start:stop], self.estimate[start:stop], self.mixed[start:stop]
        self.compressor.absorb_difference(own, self._kept(weights), packets, weights, state, self.gamma)


@algorithms.register("choco")
@dataclass(frozen=True)
class Choco(Algorithm):
    """CHOCO-SGD: compressed gossip that reaches consensus with any compressor, on a static graph.

    q_i = C(x_i - x_hat_i); x_hat_j += q_j for every neighbour and itself;
    x_i <- x_i + gamma sum_j w_ij (x_hat_j - x_hat_i).

    order=atc does this after the local step (algorithm 2 of the paper); order=cta sends q_i before
    the gradient and applies it after, so that packets travel during forward and backward.

    ``gamma`` must shrink with the compression: about 1 for int8, 0.5 for sign, 0.4 for the top
    10 %, 0.04-0.1 for the top 1 %; None picks sqrt(delta), delta the compressor's contraction, and
    delta itself for randk, whose choice of entries does not shrink the largest first.

    Source: Koloskova, Stich, Jaggi, "Decentralized Stochastic Optimization and Gossip Algorithms
    with Compressed Communication", ICML 2019, arXiv:1902.00340, algorithms 1 and 2.
    """

    budget: ClassVar[int] = 3
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    name: ClassVar[str] = "choco"
    on_gpu: ClassVar[bool] = True
    gamma: float | None = None
    order: Order = "atc"

    def __post_init__(self) -> None:
        check_order(self.name, self.order)
        if self.gamma is not None and not 0.0 < self.gamma <= 1.0:
            raise ConfigError(f"{self.name}.gamma must be in (0, 1], got {self.gamma}")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse graphs that change: the estimates of former neighbours would be missing."""
        if topology.period != 1:
            raise ConfigError(
                f"choco keeps one sum of its neighbours' estimates, so its graph must not change, and "
                f"{topology.name} changes every round; use ring, complete or exponential, or "
                "algorithm='choco-peers', or 'dpsgd' with a quantiser, on this topology"
            )
        self.check_contraction(compressor)

    def check_contraction(self, compressor: Compressor) -> None:
        """Refuse compressors whose errors would add up in the estimates."""
        if compressor.delta(BIG) == 0:
            raise ConfigError(
                f"{self.name} has no step size for {type(compressor).__name__}, whose errors can be as large "
                "as what it encodes, so that its estimates would grow without bound; use a smaller block, "
                "rounding=nearest or unbiased=false"
            )

    def step_size(self, compressor: Compressor, n: int) -> float:
        """The consensus step size in use for vectors of n elements."""
        if self.gamma is not None:
            return self.gamma
        delta = compressor.delta(max(1, n))
        return float(delta if compressor.oblivious else delta**0.5)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Estimates that start at zero, as all ranks' do."""
        gamma = self.step_size(compressor, len(x))
        if isinstance(compressor, (Quantiser, GpuQuantiser)):
            return QuantisedChocoMixer(x, compressor, degree, gamma)
        return ChocoMixer(x, compressor, degree, gamma)
