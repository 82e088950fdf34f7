"""A rank that lies: it takes part in gossip like the others, and sends each of them what an attack makes up.

For tests of robust rules in real runs. A liar trains, hears its neighbours and mixes with them as an honest
rank would; what it sends is made of the models that it has heard, in the round before. Liars know one
another, the graph, and the rule in use. In its first round, when it has heard nobody, a liar is honest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec import compress
from pydec.aggregate.attacks import Attack, Scene, fiedler_vector
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError, FrameError
from pydec.gossip.base import Algorithm, Mixer
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.memory import aligned_bytes
from pydec.gossip.rule import LocalOptimizer, Rule
from pydec.topology.base import Topology

MOST_RANKS = 1024
"""Ranks whose graph is taken apart for its Fiedler vector."""
_COPIED = (
    "budget", "averages", "tolerates_loss", "after_death", "lossless", "needs_lr", "needs_gradient",
    "takes_step", "plain_mixing", "asynchronous", "windowed", "robust", "asks_loss", "adaptive", "order",
)  # fmt: skip


class LyingMixer(EdgeMixer):
    """Mixes as ``inner`` does, and sends lies.

    Args:
        x: as for ``Mixer``.
        compressor: as for ``Mixer``.
        degree: as for ``Mixer``.
        inner: the honest mixer of ``x``.
        lying: the algorithm, with what the liars do.
    """

    forgiving = True

    def __init__(
        self, x: Vector, compressor: Compressor, degree: int, inner: AverageMixer, lying: Lying
    ) -> None:
        super().__init__(x, compressor, degree)
        self.buckets = inner.buckets
        self._inner, self._lying, self._degree = inner, lying, degree
        longest = max((stop - start for start, stop in self.buckets), default=0)
        self._packet = aligned_bytes(compressor.max_bytes(longest))
        self._heard: dict[int, Vector] = {}  # what honest ranks sent last
        self._lies: dict[int, Vector] = {}  # of this round
        self._memory: dict[int, dict[str, Any]] = {}
        self._fiedler: dict[int, float] = {}
        self._topology: Topology | None = None
        self._loss: Callable[[Vector], float] | None = None

    def place(self, rank: int, topology: Topology) -> None:
        """Whoever may ever listen needs room for a packet of its own."""
        self._inner.place(rank, topology)
        self._topology = topology
        others = topology.listeners(rank, 0) if topology.is_static else range(topology.size)
        self.meet(rank, [peer for peer in others if peer != rank])
        honest = [peer for peer in range(topology.size) if peer not in self._lying.liars]
        if topology.is_static and len(honest) >= 2 and topology.size <= MOST_RANKS:
            graph = topology.weights(0)[np.ix_(honest, honest)]
            self._fiedler = dict(zip(honest, fiedler_vector((graph + graph.T) / 2).tolist(), strict=True))

    def judge_by(self, loss: Callable[[Vector], float]) -> None:
        """Victims are taken to judge as this rank does: nobody knows their batches."""
        self._loss = loss
        self._inner.judge_by(loss)

    def open(self, total: float) -> None:
        """The lies of the last round are used up."""
        self._lies.clear()
        self._inner.round = self.round
        self._inner.open(total)

    @property
    def state_bytes(self) -> int:
        """What was heard, and a packet."""
        return self._inner.state_bytes + self._packet.nbytes + sum(x.nbytes for x in self._heard.values())

    def encode_for(self, peer: int, bucket: int, out: Bytes, key: int = 0) -> int:
        """A lie; bytes that are no packet where the compressor has no code for it."""
        if peer not in self._lies:
            self._lies[peer] = self._lie(peer)
        start, stop = self.buckets[bucket]
        try:
            return self.compressor.keyed(key).encode_into(self._lies[peer][start:stop], out)
        except ValueError:
            length = self.compressor.keyed(key).encode_into(np.zeros(stop - start, np.float32), out)
            out[:length] = 0xFF
            return length

    def absorb_from(
        self, peers: Sequence[int], bucket: int, packets: Sequence[Bytes], weights: Sequence[float]
    ) -> None:
        """Remember what honest ranks have sent, and mix."""
        start, stop = self.buckets[bucket]
        good: list[tuple[Bytes, float]] = []
        for peer, packet, weight in zip(peers, packets, weights, strict=True):
            if peer in self._lying.liars:
                continue  # of its own kind, it believes nothing
            into = self._heard.setdefault(peer, np.zeros(len(self.x), np.float32))
            try:
                self.compressor.decode(packet, into[start:stop])
            except FrameError:
                continue
            good.append((packet, weight))
        x = self.x[start:stop]
        length = self.compressor.encode_into(x, self._packet)
        self._inner.absorb(bucket, self._packet[:length], [p for p, _ in good], [w for _, w in good])

    def _lie(self, peer: int) -> Vector:
        liars, topology = self._lying.liars, self._topology
        if peer in liars or not self._heard or topology is None:
            return self.x
        known = sorted(self._heard)
        own_weight, row = topology.row(peer, self.round)
        given = {**row, peer: own_weight}
        bad = [rank for rank in row if rank in liars]
        victim = self._heard.get(peer)
        memory = self._memory.setdefault(peer, {})
        scene = Scene(
            own=self.x,
            honest=np.stack([self._heard[rank] for rank in known]),
            victim=victim,
            weights=np.array([given.get(rank, 0.0) for rank in known]) if victim is not None else None,
            liar_weight=sum(row[rank] for rank in bad),
            n=1 + len(row),
            f=len(bad),
            place=self.peers.index(peer),
            round=self.round,
            draw=np.random.default_rng([self._lying.seed, self.rank, peer, self.round]),
            memory=memory,
            fiedler=np.array([self._fiedler.get(rank, 0.0) for rank in known]) if self._fiedler else None,
            fiedler_victim=self._fiedler.get(peer, 0.0),
        )
        if victim is not None:
            scene.rule = lambda lie: self._answer(peer, lie)
        return self._lying.attack.craft(scene)

    def _answer(self, peer: int, lie: Vector) -> Vector:
        """What the victim's rule makes of its round, uncompressed, if all its liars send that."""
        assert self._topology is not None
        plain, x = compress.make("none"), self._heard[peer].copy()
        mixer = self._lying.honest.mixer(x, plain, self._degree)
        mixer.place(peer, self._topology)
        mixer.round = self.round
        if self._loss is not None:
            mixer.judge_by(self._loss)
        row = self._topology.row(peer, self.round)[1]
        sent = {rank: lie if rank in self._lying.liars else self._heard.get(rank) for rank in row}
        packets = {rank: vector for rank, vector in sent.items() if vector is not None}
        for bucket, (start, stop) in enumerate(mixer.buckets):
            bodies = [_packed(plain, vector[start:stop]) for vector in packets.values()]
            own = _packed(plain, x[start:stop])
            mixer.absorb(bucket, own, bodies, [row[rank] for rank in packets])
        return x


def _packed(compressor: Compressor, x: Vector) -> NDArray[np.uint8]:
    return np.frombuffer(compressor.encode(x), np.uint8)


class Lying(Algorithm):
    """An algorithm as a liar runs it.

    Args:
        honest: as the others run it; it must send the models themselves.
        attack: what is sent in their place.
        liars: all ranks that lie.
        seed: what attacks draw from.

    Raises:
        ConfigError: the algorithm sends more than models, or asks for the loss of others.
    """

    def __init__(self, honest: Algorithm, attack: Attack, liars: Collection[int], seed: int) -> None:
        self.honest, self.attack, self.liars, self.seed = honest, attack, frozenset(liars), seed
        for name in _COPIED:
            setattr(self, name, getattr(honest, name))
        rule = honest.rule(np.zeros(1, np.float32), compress.make("none"), 1)
        plain = type(rule) is Rule and len(rule.mixers) == 1 and isinstance(rule.mixers[0], AverageMixer)
        if not plain or honest.averages != "parameters":
            raise ConfigError(
                f"attacks are on algorithms that send the models themselves, and {type(honest).__name__} "
                "does more; use algorithm='dpsgd' or a robust rule, such as 'cs-plus'"
            )

    def __repr__(self) -> str:
        return repr(self.honest)  # liars do not say that they are

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """As of the honest ones."""
        self.honest.check(topology, compressor)

    def check_local(self, local: LocalOptimizer) -> None:
        """As of the honest ones."""
        self.honest.check_local(local)

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """A liar's."""
        inner = self.honest.mixer(x, compressor, degree)
        assert isinstance(inner, AverageMixer)
        return LyingMixer(x, compressor, degree, inner, self)

    def beside(self, x: Vector, compressor: Compressor, degree: int) -> Mixer | None:
        """Buffers are lied about as well."""
        inner = self.honest.beside(x, compressor, degree) or AverageMixer(x, compressor, degree)
        assert isinstance(inner, AverageMixer)
        return LyingMixer(x, compressor, degree, inner, self)
