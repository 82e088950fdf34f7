"""DiLoCo with compression: error feedback on deltas where all hear all, CHOCO's estimates elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import AfterDeath, Mixer, algorithms
from pydec.gossip.checks import BIG
from pydec.gossip.choco import Choco
from pydec.gossip.choco_peers import ChocoPeers
from pydec.gossip.diloco import AnchoredRule, GossipDiLoCo, OuterStep
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Rule
from pydec.topology.base import Topology


class FeedbackMixer(Mixer):
    """x <- mean_j C(e_j), the same bits on all ranks, which must all hear one another; e_i <- e_i - C(e_i).

    ``error`` is e, to which the rule has added what is to be sent; x is only written to.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        super().__init__(x, compressor, degree)
        self.error = aligned_floats(x.size)
        self._rank = 0

    def place(self, rank: int, topology: Topology) -> None:
        """Packets are added up in the order of the ranks, the own one in its place."""
        self._rank = rank

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Compress the error."""
        start, stop = self.buckets[bucket]
        return self.compressor.keyed(key).encode_into(self.error[start:stop], out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Take the mean; what was not sent of the own error stays."""
        start, stop = self.buckets[bucket]
        x = self.x[start:stop]
        ordered = [*packets[: self._rank], own, *packets[self._rank :]]
        for packet in packets:
            self.compressor.check(packet, stop - start)  # before x is cleared
        x.fill(0.0)
        self.compressor.accumulate(ordered, [1.0 / len(ordered)] * len(ordered), x)
        self.compressor.accumulate_own(own, -1.0, [], [], self.error[start:stop])

    def alone(self, bucket: int) -> None:
        """Nothing is sent, so nothing is lost."""
        start, stop = self.buckets[bucket]
        self.x[start:stop] = self.error[start:stop]
        self.error[start:stop] = 0.0

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The error."""
        return {"error": self.error}


class FeedbackRule(AnchoredRule):
    """e <- decay e + anchor - x; then the outer step on the mean of what all have sent."""

    def __init__(self, x: Vector, mixer: FeedbackMixer, outer: OuterStep, decay: float) -> None:
        super().__init__(x, mixer)
        self._mixer, self._outer, self.decay = mixer, outer, decay

    def depart(self) -> None:
        """Add what the local steps did to what is left of the rounds before."""
        error = self._mixer.error
        kernels.mix([error, self.anchor, self.x], [self.decay, 1.0, -1.0], out=error)

    def arrive(self) -> None:
        """x holds the mean of the deltas: Nesterov's step on it, from the anchor."""
        self._outer.take(self.anchor, self.x, self.velocity)
        np.copyto(self.anchor, self.x)


@algorithms.register("sparseloco")
@dataclass(frozen=True)
class SparseLoCo(GossipDiLoCo):
    """DiLoCo whose deltas are compressed with error feedback: 2 bits, or the top 1 to 3 %. All hear all.

    With theta the common model: D_i = theta - inner_i(theta); e_i <- decay e_i + D_i; q_i = C(e_i);
    e_i <- e_i - q_i; d = mean q_i; m <- momentum m + d; theta <- theta - outer_lr (d + momentum m).

    Without momentum and with topk-int8 of 1 to 3 % it is SparseLoCo, whose error feedback takes the place
    of the outer momentum; with momentum=0.9 and int2 it is MuLoCo's outer step. Every rank adds up all
    packets in the same order, so that models stay equal to the last bit; ranks must start equal. A packet
    goes to every other rank, which is little at 1 %: beyond some 50 ranks use choco-diloco.

    Sources: Sarfi, Thérien, Lidin, Belilovsky, "Communication Efficient LLM Pre-training with SparseLoCo",
    2025, arXiv:2508.15706, algorithm 1 (there with 2-bit values); Thérien, Huang, Rish, Belilovsky,
    "MuLoCo: Muon is a practical inner optimizer for DiLoCo", 2025, arXiv:2505.23725.
    """

    name: ClassVar[str] = "sparseloco"
    budget: ClassVar[int] = 4
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "stop"
    outer_lr: float = 1.0
    momentum: float = 0.0
    decay: float = 0.95

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.decay <= 1.0:
            raise ConfigError(f"sparseloco.decay must be in [0, 1], got {self.decay}")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse graphs on which some packets do not reach everybody, and errors that would grow."""
        if topology.messages_per_round < topology.size - 1:
            raise ConfigError(
                f"sparseloco's models stay equal because every rank hears all deltas, and not all are heard "
                f"on {topology.name}; use topology complete, or algorithm='choco-diloco' on this one"
            )
        if compressor.delta(BIG) == 0:
            raise ConfigError(
                f"sparseloco's error feedback does not converge with {type(compressor).__name__}, whose "
                "errors can be as large as what it encodes; use a smaller block, rounding=nearest or "
                "unbiased=false"
            )

    def check_start(self, init: str) -> None:
        """Refuse models of one's own: only deltas are averaged."""
        if init == "keep":
            raise ConfigError(
                "sparseloco averages what the ranks' steps do, not their models, which must start equal; use "
                "init='broadcast', or algorithm='choco-diloco'"
            )

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> FeedbackMixer:
        """An error that starts at zero."""
        return FeedbackMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """An outer momentum that starts at zero."""
        outer = OuterStep(self.outer_lr, self.momentum)
        return FeedbackRule(x, self.mixer(x, compressor, degree), outer, self.decay)


@algorithms.register("choco-diloco")
@dataclass(frozen=True)
class ChocoDiLoCo(GossipDiLoCo):
    """gossip-diloco whose models travel as compressed differences, on static and one-peer graphs.

    The outer step is that of gossip-diloco, z_i = theta_i - outer_lr (d_i + momentum m_i); in place of its
    mixing, CHOCO's, theta_i <- z_i + gamma sum_j w_ij (z_hat_j - z_hat_i): of choco where the graph is
    static and ranks hear several others, of choco-peers where they hear one. What a packet leaves out stays
    in the difference to the estimate and is sent later: error feedback without a vector of its own. The
    mean over the ranks is that of gossip-diloco, whatever the compressor. ``gamma`` is that of choco.

    Source: Koloskova, Stich, Jaggi, ICML 2019, arXiv:1902.00340, algorithm 2, around the outer step of
    Douillard et al., "DiLoCo", 2023, arXiv:2311.08105.
    """

    name: ClassVar[str] = "choco-diloco"
    budget: ClassVar[int] = 4
    tolerates_loss: ClassVar[bool] = False
    after_death: ClassVar[AfterDeath] = "restart"
    gamma: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._choco(1)

    def _choco(self, degree: int) -> Choco:
        return (ChocoPeers if degree <= 1 else Choco)(gamma=self.gamma)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """As choco or choco-peers."""
        self._choco(topology.degree).check(topology, compressor)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """CHOCO's estimates, of the models."""
        return self._choco(degree).mixer(x, compressor, degree)
