"""Exact diffusion and D2: a correction that remembers what mixing did to the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import AfterDeath, Algorithm, Mixer, algorithms
from pydec.gossip.checks import require_lossless, require_symmetric
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import LEAST_LR, Rule
from pydec.topology.base import Topology

_D2_LIMIT = -1.0 / 3.0
_ROUNDING = 1e-9  # of an eigenvalue


class CorrectionMixer(Mixer):
    """Plain mixing that adds up, in ``correction``, by how much it has moved the vector.

    Args:
        share: factor of the neighbours' weights: 1 for W, 1/2 for (I + W) / 2.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int, share: float) -> None:
        super().__init__(x, compressor, degree)
        self.share = share
        self.move_scale = 1.0 / share**2
        self.correction = aligned_floats(x.size)
        self.learning = True
        """Whether this round's move counts."""
        longest = max((stop - start for start, stop in self.buckets), default=0)
        self._flow = aligned_floats(longest)

    @property
    def state_bytes(self) -> int:
        """The correction and what flows along one edge of one bucket."""
        return super().state_bytes + self._flow.nbytes

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Encode the vector itself."""
        start, stop = self.buckets[bucket]
        return self.compressor.encode_into(self.x[start:stop], out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Mix one bucket; correction += w_ij (x_j - x_i) for one neighbour j after the other.

        What flows along an edge has the same bits with opposite sign at its two ends, so rounding
        disturbs the sum of the corrections by their own last bits only, not by those of the model,
        which would add up over a training run.
        """
        start, stop = self.buckets[bucket]
        x, correction, flow = self.x[start:stop], self.correction[start:stop], self._flow[: stop - start]
        vectors = [self.compressor.view(packet, x.size) for packet in packets]
        scaled = [self.share * weight for weight in weights]
        if self.learning:
            for vector, weight in zip(vectors, scaled, strict=True):
                np.subtract(vector, x, out=flow)
                kernels.mix([correction, flow], [1.0, weight], out=correction)
        kernels.mix([x, *vectors], [1.0 - sum(scaled), *scaled], out=x)

    def restart(self) -> None:
        """The corrections of the survivors no longer sum to 0: start from 0, as in the first step."""
        self.correction.fill(0.0)

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The correction."""
        return {"correction": self.correction}


class CorrectionRule(Rule):
    """Gives back, in every local step, its part of what the mixing before has moved."""

    def __init__(self, x: Vector, mixer: CorrectionMixer, local_steps: int) -> None:
        super().__init__(x, [mixer])
        self._mixer = mixer
        self._part = 1.0 / local_steps
        self._lr = 0.0

    def before(self, lr: float) -> None:
        """A step with a rate of 0 only mixes: there is no step that the mixing could correct."""
        self._mixer.learning = abs(lr) > LEAST_LR

    def after(self, lr: float) -> None:
        """x <- x + correction / local_steps, the correction scaled as the learning rate was."""
        if not self._mixer.learning:
            return
        correction = self._mixer.correction
        if self._lr and lr != self._lr:
            kernels.mix([correction], [lr / self._lr], out=correction)
        self._lr = lr
        kernels.mix([self.x, correction], [1.0, self._part], out=self.x)

    def numbers(self) -> dict[str, float]:
        """The learning rate that the correction belongs to."""
        return {"lr": self._lr}

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        self._lr = numbers["lr"]


@dataclass(frozen=True)
class _Corrected(Algorithm):
    """What exact diffusion and D2 share."""

    budget: ClassVar[int] = 3
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    lossless: ClassVar[bool] = True
    needs_lr: ClassVar[bool] = True
    share: ClassVar[float] = 1.0
    name: ClassVar[str] = ""

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse directed graphs and compression."""
        require_symmetric(self.name, topology)
        require_lossless(self.name, compressor, "its error would stay in the correction")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> CorrectionMixer:
        """Mixing with a correction that starts at zero."""
        return CorrectionMixer(x, compressor, degree, self.share)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """The correction is spread over the local steps, so that each of them stays at the optimum."""
        return CorrectionRule(x, self.mixer(x, compressor, degree), local_steps)


@algorithms.register("exact-diffusion")
@dataclass(frozen=True)
class ExactDiffusion(_Corrected):
    """D2 with (I + W) / 2: reaches the common optimum whatever the ranks' data; one message; symmetric.

    psi_i = x_i - eta g_i; x_i+ = sum_j (I + W)_ij / 2 (psi_j + c_j); c_i <- c_i + (x_i+ - psi_i - c_i);
    that is x+ = (I + W) / 2 (2 x - x- - eta (g - g-)) with the history in one vector c, whose sum over the
    ranks stays 0. When the learning rate changes, c changes in proportion; a step with eta = 0 only mixes.

    psi is whatever the local optimiser makes of x, so momentum SGD gives exact diffusion with momentum.
    With H local steps each of them adds c / H. Symmetric graphs that change have no theory, but converged
    wherever it was tried.

    Source: Yuan, Ying, Zhao, Sayed, "Exact Diffusion for Distributed Optimization and Learning", IEEE
    Trans. Signal Processing 2019, arXiv:1702.05122, algorithm 1.
    """

    share: ClassVar[float] = 0.5
    name: ClassVar[str] = "exact-diffusion"


@algorithms.register("d2")
@dataclass(frozen=True)
class D2(_Corrected):
    """Reaches the common optimum whatever the ranks' data; one message. Static, smallest eigenvalue > -1/3.

    x+ = W (2 x - x- - eta (g - g-)), in the correction form of exact-diffusion: x_i+ = sum_j w_ij
    (x_j - eta g_j + c_j); c_i <- x_i+ - x_i + eta g_i, scaled when the learning rate changes.

    Source: Tang, Lian, Yan, Zhang, Liu, "D2: Decentralized Training over Decentralized Data", ICML 2018,
    arXiv:1803.07068, algorithm 1.
    """

    name: ClassVar[str] = "d2"

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse graphs that change and matrices with an eigenvalue of -1/3 or less."""
        super().check(topology, compressor)
        if topology.period != 1:
            raise ConfigError(
                f"d2 diverges on graphs that change, and {topology.name} changes every round; use "
                "algorithm='exact-diffusion', or 'momentum-tracking', or a static graph"
            )
        least = topology.smallest_eigenvalue()
        if least is not None and least <= _D2_LIMIT + _ROUNDING:
            raise ConfigError(
                f"d2 diverges if the mixing matrix has an eigenvalue of -1/3 or less, and {topology.name} of "
                f"{topology.size} ranks has {least:.4f}; use algorithm='exact-diffusion', which mixes with "
                "(I + W) / 2"
            )
