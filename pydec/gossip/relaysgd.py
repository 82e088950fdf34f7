"""RelaySGD: sums of models are relayed along a tree, so that all ranks weigh the same, with a delay."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError, FrameError
from pydec.gossip.base import Algorithm, Mixer, algorithms
from pydec.gossip.checks import require_lossless
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.memory import aligned_floats
from pydec.gossip.rule import Rule
from pydec.topology import is_tree
from pydec.topology.base import Topology

_COUNT = struct.Struct("<Q")  # before the payload of every packet
_PREFIX = 16  # keeps the payload on a 16-byte boundary
_MOST = 1 << 32  # ranks that one packet may count


class RelayMixer(EdgeMixer):
    """Holds what every neighbour sent last: a sum of models and how many they are, per bucket."""

    def __init__(self, x: Vector, compressor: Compressor, degree: int) -> None:
        super().__init__(x, compressor, degree)
        self.sums: dict[int, Vector] = {}
        self.counts: dict[int, list[int]] = {}
        longest = max((stop - start for start, stop in self.buckets), default=0)
        self._total = aligned_floats(longest)

    def meet(self, rank: int, peers: Sequence[int]) -> None:
        """One sum per neighbour, of no models yet."""
        super().meet(rank, peers)
        self.sums = {peer: aligned_floats(self.x.size) for peer in peers}
        self.forget()

    def forget(self) -> None:
        """Nothing has been relayed yet."""
        self.counts = {peer: [0] * len(self.buckets) for peer in self.peers}
        for total in self.sums.values():
            total.fill(0.0)

    @property
    def state_bytes(self) -> int:
        """The neighbours' sums and one bucket of a packet."""
        return super().state_bytes + self._total.nbytes

    def capacity(self, bucket: int) -> int:
        """The count and the sum."""
        return _PREFIX + super().capacity(bucket)

    def encode_for(self, peer: int, bucket: int, out: Bytes, key: int = 0) -> int:
        """The own model and what the other neighbours sent last."""
        start, stop = self.buckets[bucket]
        others = [other for other in self.peers if other != peer]
        count = 1 + sum(self.counts[other][bucket] for other in others)
        vectors = [self.x[start:stop], *(self.sums[other][start:stop] for other in others)]
        total = kernels.mix(vectors, [1.0] * len(vectors), out=self._total[: stop - start])
        out[:_PREFIX] = 0
        _COUNT.pack_into(out, 0, count)
        return _PREFIX + self.compressor.encode_into(total, out[_PREFIX:])

    def absorb_from(
        self, peers: Sequence[int], bucket: int, packets: Sequence[Bytes], weights: Sequence[float]
    ) -> None:
        """x becomes the mean of all that arrived; a late neighbour's side is left out and not relayed."""
        start, stop = self.buckets[bucket]
        counts = [_count(packet) for packet in packets]
        sums = [self.compressor.view(packet[_PREFIX:], stop - start) for packet in packets]
        for peer in set(self.peers) - {*peers}:
            self.sums[peer][start:stop] = 0.0
            self.counts[peer][bucket] = 0
        for peer, count, total in zip(peers, counts, sums, strict=True):
            np.copyto(self.sums[peer][start:stop], total)
            self.counts[peer][bucket] = count
        x, share = self.x[start:stop], 1.0 / (1 + sum(counts))
        kernels.mix([x, *sums], [share] * (1 + len(sums)), out=x)

    def decodes(self, bucket: int, body: Bytes) -> bool:
        """Whether count and payload are well formed."""
        try:
            _count(body)
        except FrameError:
            return False
        return super().decodes(bucket, body[_PREFIX:])

    def state(self) -> Mapping[str, NDArray[np.float32]]:
        """The neighbours' sums."""
        return {f"sum.{peer}": total for peer, total in self.sums.items()}


def _count(packet: Bytes) -> int:
    if packet.size < _PREFIX or packet[_COUNT.size : _PREFIX].any():
        raise FrameError("a relayed packet starts with a 64-bit count and 8 zero bytes")
    count = int(_COUNT.unpack_from(packet)[0])
    if not 1 <= count < _MOST:
        raise FrameError(f"a relayed count must be in [1, 2^32), got {count}")
    return count


class RelayRule(Rule):
    """Keeps the counts in checkpoints."""

    def __init__(self, x: Vector, mixer: RelayMixer) -> None:
        super().__init__(x, [mixer])
        self._mixer = mixer

    def rebase(self) -> None:
        """The models that the sums hold are gone."""
        self._mixer.forget()

    def numbers(self) -> dict[str, float]:
        """How many models each neighbour's sum holds, by neighbour and bucket."""
        return {
            f"count.{peer}.{bucket}": float(count)
            for peer, counts in self._mixer.counts.items()
            for bucket, count in enumerate(counts)
        }

    def load_numbers(self, numbers: Mapping[str, float]) -> None:
        """See ``numbers``."""
        for peer, counts in self._mixer.counts.items():
            counts[:] = [int(numbers[f"count.{peer}.{bucket}"]) for bucket in range(len(counts))]


@algorithms.register("relaysgd")
@dataclass(frozen=True)
class RelaySGD(Algorithm):
    """The uniform mean of all ranks' models, of those d edges away as they were d - 1 steps ago. Trees only.

    Along every edge of a tree m_i->j <- x_i - eta g_i + sum over k != j of m_k->i of the step before, and
    c_i->j <- 1 + sum over k != j of c_k->i; x_i <- (x_i - eta g_i + sum_j m_j->i) / (1 + sum_j c_j->i), whose
    divisor is the number of ranks once every rank has been heard.

    Reaches the common optimum whatever the ranks' data, with any local optimiser (Adam keeps its own bias).
    The delay asks for a learning rate that falls with the tree's diameter: prefer binary-tree or a spanning
    tree of a graph of small diameter to chain. With late="drop" what a late neighbour would have brought is
    left out of the mean, with its count, and not relayed. One sum per neighbour is kept.

    Source: Vogels, He, Koloskova, Karimireddy, Lin, Stich, Jaggi, "RelaySum for Decentralized Deep Learning
    on Heterogeneous Data", NeurIPS 2021, arXiv:2110.04175, algorithm 1.
    """

    budget: ClassVar[int] = 3
    lossless: ClassVar[bool] = True

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse all graphs but trees, and compression."""
        if not is_tree(topology):
            fits = topology.is_static and topology.is_symmetric
            raise ConfigError(
                f"relaysgd relays sums along a tree, and {topology.name} of {topology.size} ranks is none: "
                "models would be counted more than once; use topology binary-tree, chain, star or "
                f"spanning-tree:of={topology.name.partition(':')[0] if fits else 'torus'}, or "
                "algorithm='exact-diffusion' or 'gradient-tracking' on this one"
            )
        require_lossless("relaysgd", compressor, "its error would be relayed to all ranks")

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Sums that hold no models yet."""
        return RelayMixer(x, compressor, degree)

    def rule(self, x: Vector, compressor: Compressor, degree: int, local_steps: int = 1) -> Rule:
        """The counts belong to the rule's numbers."""
        return RelayRule(x, RelayMixer(x, compressor, degree))
