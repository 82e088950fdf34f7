"""ADSGD: every rank at its own pace, with the latest copies of its neighbours' models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from pydec.comm.transport import Transport
from pydec.compress.base import Compressor, Vector
from pydec.gossip.base import Algorithm, Mixer, Order, algorithms
from pydec.gossip.checks import require_doubly_stochastic, require_static_connected, require_whole_model
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.latest import LatestExchange
from pydec.topology.base import Topology

_FINER = 4  # times as many buckets as in rounds: one of each neighbour is kept beside the copies, both ways


@algorithms.register("adsgd")
@dataclass(frozen=True)
class ADSGD(Algorithm):
    """Asynchronous decentralised SGD: nobody waits for anybody, and no speed biases the result.

    At every step of its own, x_i <- w_ii x_i + sum_j w_ij x_j - eta g(x_i), x_j being what was last
    received from rank j. The fixed point is that of D-PSGD with order=cta, (I - W) X = -eta G(X), whatever
    the ranks' speeds and the delays and losses of messages. A rank that is k times slower takes k times
    fewer steps, and its data count no less for it.

    Models travel whole, so a copy that is lost is made up for by the next. With a quantiser the own
    packet is subtracted, x_i + sum_j w_ij (Q(x_j) - Q(x_i)) - eta g: where ranks agree nothing pulls them to
    the quantiser's grid, and what is left is its rounding of the models. Mixing is in float32, which ends
    within 3e-7 of the fixed point for models of size 1. The mean over the ranks is not kept from step to
    step, as no method's is that mixes old copies.

    Any torch optimiser takes the local step. The graph must be connected and stay the same.

    Source: "Asynchronous Decentralized SGD under Non-Convexity: A Block-Coordinate Descent Framework",
    arXiv:2505.10322, algorithm 1.
    """

    budget: ClassVar[int] = 2  # beside the neighbours' packets
    asynchronous: ClassVar[bool] = True
    order: Order = field(default="cta", init=False, repr=False)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse graphs that change or fall apart, and compressors that drop most of the model."""
        require_doubly_stochastic("adsgd", topology)
        require_static_connected("adsgd", topology)
        require_whole_model("adsgd", compressor)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Stateless mixing of ``x``; the exchange keeps the copies."""
        return AverageMixer(x, compressor, _FINER * degree)

    def connect(
        self, transport: Transport, topology: Topology, mixers: Sequence[Mixer], *, epoch: int, seed: int
    ) -> LatestExchange:
        """The neighbours' latest copies."""
        return LatestExchange(transport, topology, mixers, epoch=epoch, seed=seed)
