"""AD-PSGD: asynchronous averages of two random neighbours; with A2CiD2's momentum on sparse graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydec.comm.transport import Transport
from pydec.compress.base import Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm, Mixer, Order, algorithms
from pydec.gossip.checks import require_static_connected, require_symmetric, require_whole_model
from pydec.gossip.pair_mixer import Momentum, PairMixer
from pydec.gossip.pairwise import PairwiseExchange
from pydec.gossip.rule import LocalOptimizer, Rule
from pydec.topology.base import Topology
from pydec.topology.spectrum import averaging_constants


class PairRule(Rule):
    """Lets the public model and its companion start again where the model was replaced."""

    def __init__(self, x: Vector, mixer: PairMixer) -> None:
        super().__init__(x, [mixer])
        self._mixer = mixer

    def rebase(self) -> None:
        """See ``PairMixer.rebase``."""
        self._mixer.rebase()

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """The model and the companion have been loaded; see ``PairMixer.restart``."""
        self._mixer.restart()


@algorithms.register("ad-psgd")
@dataclass(frozen=True)
class ADPSGD(Algorithm):
    """Asynchronous decentralised parallel SGD: average with one random neighbour while computing.

    After each local step a rank averages with a random neighbour, x_i, x_j <- (x_i + x_j) / 2, on both
    sides or on neither, while it computes the next gradient, which is then applied to the average. The
    mean over the ranks changes by local steps alone, under any schedule and with any quantiser (with
    a2cid2, that of models and companions together).

    A rank that is k times slower takes k times fewer steps, and the common model leans towards the data
    of the fast ones: where data differ and speeds, too, use adsgd, which does not.

    ``a2cid2`` adds a companion y that the model and its averages are accelerated by, on graphs that mix
    slowly: dx = eta (y - x) dt, dy = eta (x - y) dt, and an average moves x by half of the difference z
    and y by alpha z; eta = 1 / (2 sqrt(chi1 chi2)), alpha = sqrt(chi1 / chi2) / 2, with chi1 and chi2 of
    the graph (``topology.spectrum.averaging_constants``) and one local step as the unit of time. For SGD,
    with or without momentum.

    Sources: Lian, Zhang, Zhang, Liu, "Asynchronous Decentralized Parallel Stochastic Gradient Descent",
    ICML 2018, arXiv:1710.06952, algorithm 1. Nabli, Belilovsky, Oyallon, "A2CiD2: Accelerating Asynchronous
    Communication in Decentralized Deep Learning", NeurIPS 2023, arXiv:2306.08289, algorithm 1.
    """

    budget: ClassVar[int] = 3
    asynchronous: ClassVar[bool] = True
    tolerates_loss: ClassVar[bool] = False
    a2cid2: bool = False
    order: Order = field(default="cta", init=False, repr=False)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse directed graphs, graphs that change or fall apart, and compressors that drop most."""
        require_symmetric("ad-psgd", topology)
        require_static_connected("ad-psgd", topology)
        require_whole_model("ad-psgd", compressor)
        if self.a2cid2 and topology.degree >= topology.size - 1 > 0:
            raise ConfigError(
                f"a2cid2=true gains nothing where all are neighbours of all, as on {topology.name} of "
                f"{topology.size} ranks; leave it out, or use a sparser graph, such as ring"
            )
        self._momentum(topology)

    def check_local(self, local: LocalOptimizer) -> None:
        """A2CiD2 holds for SGD."""
        if self.a2cid2 and not local.sgd:
            raise ConfigError(
                f"a2cid2=true is made for SGD, with or without momentum, and does not hold for {local.name}; "
                "wrap torch.optim.SGD, or use algorithm='ad-psgd'"
            )

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> PairMixer:
        """A public model that others average with."""
        return PairMixer(x, compressor, degree, companion=self.a2cid2)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """The public model follows the parameters."""
        return PairRule(x, self.mixer(x, compressor, degree))

    def connect(
        self, transport: Transport, topology: Topology, mixers: Sequence[Mixer], *, epoch: int, seed: int
    ) -> PairwiseExchange:
        """Requests and answers."""
        momentum = self._momentum(topology)
        return PairwiseExchange(transport, topology, mixers, momentum=momentum, epoch=epoch, seed=seed)

    def _momentum(self, topology: Topology) -> Momentum | None:
        if not self.a2cid2 or topology.size == 1:
            return None
        chi1, chi2 = averaging_constants(topology)
        return Momentum(eta=0.5 / (chi1 * chi2) ** 0.5, alpha=0.5 * (chi1 / chi2) ** 0.5)
