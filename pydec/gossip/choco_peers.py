"""CHOCO-SGD on graphs that change: a pair of estimates for every neighbour that there will be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError, PeerLost
from pydec.gossip.base import AfterDeath, Mixer, Order, algorithms
from pydec.gossip.checks import require_doubly_stochastic
from pydec.gossip.choco import Choco
from pydec.gossip.memory import floats_beside, subtract
from pydec.topology.base import Topology


class PeerMixer(Mixer):
    """What every listener knows of x, and what is known of everyone heard; one of each in a round.

    Both ends of a link add the same packet to the same copy, and each moves by gamma w times the difference
    of the link's two copies, so the mean is kept whatever the compressor.
    """

    def __init__(self, x: Vector, compressor: Compressor, degree: int, gamma: float) -> None:
        super().__init__(x, compressor, degree)
        self.gamma = gamma
        self.told: dict[int, Vector] = {}
        """By listener: the sum of what was sent to it."""
        self.known: dict[int, Vector] = {}
        """By rank heard: the sum of what came from it."""
        self._rank = 0
        self._topology: Topology | None = None
        longest = max((stop - start for start, stop in self.buckets), default=0)
        self._difference: Vector = floats_beside(x, longest)

    def place(self, rank: int, topology: Topology) -> None:
        """Make room for everyone who will be met: the partners of one period, or all ranks."""
        self._rank, self._topology = rank, topology
        rounds = range(topology.period)
        listeners = {peer for t in rounds for peer in topology.listeners(rank, t)}
        heard = {peer for t in rounds for peer in topology.neighbors(rank, t)}
        if not rounds:
            listeners = heard = {*range(topology.size)} - {rank}
        self.told = {peer: floats_beside(self.x, len(self.x)) for peer in sorted(listeners)}
        self.known = {peer: floats_beside(self.x, len(self.x)) for peer in sorted(heard)}

    def lose(self, peer: int) -> None:
        """The link's copies are never used again, and both ends rest when they would have met.

        Raises:
            PeerLost: pairs are one-way, so that dropping one link would move the mean by the other's copy.
        """
        assert self._topology is not None
        if not self._topology.is_symmetric and (peer in self.told or peer in self.known):
            raise PeerLost(
                peer,
                f"is gone, and choco-peers on {self._topology.name}, whose ranks send to one and hear "
                "another, cannot leave it out; use topology base-k:k=1 or random-matching, or dpsgd",
            )

    @property
    def state_bytes(self) -> int:
        """All copies and one bucket's difference."""
        return super().state_bytes + self._difference.nbytes

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Encode x minus what this round's listener knows of it."""
        assert self._topology is not None
        start, stop = self.buckets[bucket]
        (listener,) = self._topology.listeners(self._rank, self.round)
        difference = self._difference[: stop - start]
        subtract(self.x[start:stop], self.told[listener][start:stop], difference)
        return self.compressor.keyed(key).encode_into(difference, out)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Update both copies of the link, or links, and move x by their difference."""
        assert self._topology is not None
        if not packets:
            return  # the partner has died
        start, stop = self.buckets[bucket]
        (listener,) = self._topology.listeners(self._rank, self.round)
        (sender,) = self._topology.neighbors(self._rank, self.round)
        told, known = self.told[listener][start:stop], self.known[sender][start:stop]
        self.compressor.accumulate(packets, [1.0], known)
        self.compressor.accumulate_own(own, 1.0, [], [], told)
        step = self.gamma * weights[0]  # rows and columns of a single entry have the same weight
        x = self.x[start:stop]
        kernels.mix([x, known, told], [1.0, step, -step], out=x)

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The copies, by direction and rank."""
        told = {f"told.{peer}": copy for peer, copy in self.told.items()}
        return told | {f"known.{peer}": copy for peer, copy in self.known.items()}


@algorithms.register("choco-peers")
@dataclass(frozen=True)
class ChocoPeers(Choco):
    """CHOCO-SGD with estimates per neighbour: strong compression on one-peer graphs that change.

    For this round's link i -> k, a_ik what k knows of x_i: q = C(x_i - a_ik); a_ik += q at both ends;
    x_i <- x_i + gamma w_ij (a_ji - a_ik), where i hears j and k hears i (on symmetric graphs, j = k).

    A copy waits unchanged until its two ranks meet again. One rank keeps two model-sized vectors for every
    rank that it will ever meet: 2 log2 n on one-peer exponential graphs, 2 (n - 1) on random matching. Each
    rank must hear and be heard by at most one other in a round. Default step sizes as for choco: on directed
    graphs larger ones can diverge (sign: 0.15 does on 6 ranks, the default of 0.07 agrees linearly).

    Source: Koloskova, Stich, Jaggi, "Decentralized Stochastic Optimization and Gossip Algorithms
    with Compressed Communication", ICML 2019, arXiv:1902.00340, algorithm 2; its x_hat here per link.
    """

    name: ClassVar[str] = "choco-peers"
    after_death: ClassVar[AfterDeath] = "go on"
    order: Order = "atc"

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse rounds with several neighbours, and compressors that are no contraction."""
        require_doubly_stochastic("choco-peers", topology)
        if topology.degree > 1:
            raise ConfigError(
                f"choco-peers talks to one neighbour a round, and a rank hears {topology.degree} on "
                f"{topology.name}; use one-peer-exponential, base-k:k=1 or random-matching, or "
                "algorithm='choco' on a static graph"
            )
        self.check_contraction(compressor)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Copies that start at zero, as all ranks' do."""
        return PeerMixer(x, compressor, degree, self.step_size(compressor, len(x)))
