"""What robust gossip is: every neighbour's pull on the own model is bounded by a rule before it is applied.

A rule sees how far the neighbours' models are from the own one, as they arrived, and says with which weight
a_j each of them counts: x_i <- x_i + sum_j a_j (q_j - q_i), q what the packets hold. Distances are taken in
one pass over all packets, of integer codes without decoding them. Of models on a GPU everything is done there
but for the rule, which waits for the distances. What is malformed, not finite or too far is
left out before any rule and counted: no honest rank sends it, so at most f less that many liars are left. A
neighbour that is late or gone, or whose packet an exchange did not take, is left out too, and f stays: it
need not be a liar, or an audit that runs the round again has not heard it. Where too few are left the own
model is kept.

Distances are those of a whole vector: of all parameters of one type, not of a bucket.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.aggregate.inputs import Matrix
from pydec.aggregate.screen import Counts, Screen
from pydec.aggregate.views import gram_of, squared_of
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.compress.gpu import OnGpu
from pydec.errors import ConfigError, FrameError
from pydec.gossip.base import Algorithm, Mixer, Order
from pydec.gossip.checks import check_order, require_doubly_stochastic, require_whole_model
from pydec.gossip.dpsgd import AverageMixer
from pydec.gossip.memory import floats_beside
from pydec.topology.base import Topology
from pydec.topology.members import Members

Weights = NDArray[np.float64]
Centre = Callable[[], Vector]
Judge = Callable[[Vector], float]
"""The loss of a model on the own batch."""

_ROUNDS = 4  # of a schedule that never repeats, in which neighbours are counted


@dataclass
class Heard:
    """What a rule sees of a round.

    Args:
        distances: of the neighbours' models to the own one, shape (m,).
        weights: what the graph gives to them, shape (m,).
        f: how many of them may be anything.
        round: of gossip.
        norm: length of the own model.
        gram: inner products of the neighbours' models about the own one, shape (m, m).
        loss: of the own model on the own batch (-1), or of a neighbour's.
    """

    distances: Weights
    weights: Weights
    f: int
    round: int
    norm: Callable[[], float]
    gram: Callable[[], Matrix]
    loss: Callable[[int], float]

    @property
    def suspect(self) -> float:
        """The most weight that f liars can have: that of the f heaviest neighbours."""
        return float(np.sort(self.weights)[len(self.weights) - self.f :].sum())


class RobustMixer(AverageMixer):
    """Applies the weights of a rule.

    Args:
        x: as for ``Mixer``.
        compressor: as for ``Mixer``.
        degree: as for ``Mixer``.
        algorithm: whose rule it is.

    Attributes:
        counts: what was left out so far.
        judge: the loss of a model on the own batch, for rules that ask; see ``judge_by``.
    """

    forgiving: ClassVar[bool] = True
    move_scale = 0.0  # a bounded round does not show how far apart the models are

    def __init__(self, x: Vector, compressor: Compressor, degree: int, rule: RobustAlgorithm) -> None:
        super().__init__(x, compressor, degree)
        self.buckets = [(0, len(x))] if len(x) else []
        self.counts = Counts()
        self.judge: Judge | None = None
        self._rule, self._screen = rule, Screen()
        self._seat: tuple[int, Topology] | None = None
        self._own: Vector = floats_beside(x, 0)
        self._spare: list[Vector] = []
        self._pairs: Matrix | None = None  # squared distances of this round's packets to each other

    def place(self, rank: int, topology: Topology) -> None:
        """See ``Mixer``."""
        self._seat = rank, topology

    def alone(self, bucket: int) -> None:
        """Count it if all neighbours are gone; not where the graph gives none in this round."""
        if self._seat is not None:
            rank, topology = self._seat
            self.counts.kept_own += bool(topology.neighbors(rank, self.round))

    def judge_by(self, loss: Judge) -> None:
        """See ``Mixer``."""
        self.judge = loss

    @property
    def state_bytes(self) -> int:
        """The own packet, decoded, and neighbours', for rules that look at more than distances."""
        return super().state_bytes + self._own.nbytes + sum(part.nbytes for part in self._spare)

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Mix."""
        if not packets:
            self.counts.kept_own += 1
            return
        centre = cache(lambda: self._decoded(own))
        bodies, kept, squared = self._measured(own, centre, packets, weights)
        sound = self._screen.sound(squared, np.isfinite(squared), self.counts)
        where = np.flatnonzero(sound)
        if self._pairs is not None:
            self._pairs = self._pairs[np.ix_(where, where)]
        left = [bodies[k] for k in where]
        f = max(0, self.f - (len(packets) - len(left)))  # what no honest rank sends came from one of the f
        if not left or not self._fits(len(left), f):
            self.counts.kept_own += 1
            return
        self.mix(own, centre, left, np.array(kept)[where], np.sqrt(squared[where]), f)

    def _measured(
        self, own: Bytes, centre: Centre, packets: Sequence[Bytes], weights: Sequence[float]
    ) -> tuple[list[Bytes], list[float], Weights]:
        """The packets that hold a vector, their weights, and squared distances to the centre."""
        compressor: Any = self.compressor
        if isinstance(compressor, OnGpu):
            good, found = compressor.measure(cast(Any, packets), cast(Any, centre()))
            where: list[int] = np.flatnonzero(good).tolist()
            self.counts.malformed += len(packets) - len(where)
            return [packets[k] for k in where], [weights[k] for k in where], found[where]
        try:
            all_squared = self._squared(own, centre, packets)
        except FrameError:
            all_squared = None  # which one is found below
        if all_squared is not None:
            return list(packets), list(weights), all_squared
        bodies, kept, squared = [], [], []
        for packet, weight in zip(packets, weights, strict=True):
            try:
                alone = self._squared(own, centre, [packet])
                squared.append(self.compressor.sqdist(packet, centre()) if alone is None else float(alone[0]))
            except FrameError:
                self.counts.malformed += 1
                continue
            bodies.append(packet)
            kept.append(weight)
        self._pairs = None
        return bodies, kept, np.array(squared)

    def _squared(self, own: Bytes, centre: Centre, packets: Sequence[Bytes]) -> Weights | None:
        """Squared distances to the centre in one pass; None where packets have to be decoded."""
        self._pairs = None
        views = self.compressor.views(packets, len(self.x))
        if views is not None:
            return squared_of(views, centre())
        if self._rule.asks_pairs:
            apart = self.compressor.pair_sqdists(own, packets, len(self.x))
            if apart is not None:
                self._pairs = apart[1:, 1:]
                return apart[0, 1:]
        return self.compressor.sqdists(own, packets, len(self.x))

    @property
    def f(self) -> int:
        """How many of the neighbours may be anything."""
        return self._rule.f

    def _fits(self, m: int, f: int) -> bool:
        return m >= self._rule.least(f, m)

    def mix(
        self, own: Bytes, centre: Centre, packets: list[Bytes], weights: Weights, far: Weights, f: int
    ) -> None:
        """Do what the rule says with the packets that are fit for it.

        Args:
            own: the own packet.
            centre: says what it holds.
            packets: what arrived.
            weights: what the graph gives to them.
            far: their distances to the centre.
            f: how many of them may be anything.
        """
        heard = Heard(
            far,
            weights,
            f,
            self.round,
            norm=lambda: float(kernels.sqnorm(centre())) ** 0.5,
            gram=lambda: self._gram(centre, packets, far),
            loss=lambda k: self._loss(centre() if k < 0 else self.vectors([packets[k]])[0]),
        )
        factors = self._rule.coefficients(heard)
        self.counts.given += float(weights.sum())
        self.counts.taken += float(np.minimum(factors, weights).sum())
        used = np.flatnonzero(factors)
        chosen = [packets[k] for k in used]
        shares: list[float] = factors[used].tolist()
        if not chosen:
            return
        vectors = self.compressor.views([own, *chosen], len(self.x))
        if vectors is not None:
            ones, free = [1.0] * len(shares), [float("inf")] * len(shares)
            kernels.clip_accumulate(vectors[1:], shares, ones, free, self.x, self.x)
        else:
            self.compressor.accumulate_own(own, -sum(shares), chosen, shares, self.x)

    def _gram(self, centre: Centre, packets: Sequence[Bytes], far: Weights) -> Matrix:
        """Inner products about the centre; from the distances of all pairs where these are known."""
        if self._pairs is None:
            return gram_of(self.vectors(packets), centre())
        squared = far**2
        return np.asarray((squared[:, None] + squared - self._pairs) / 2.0)

    def vectors(self, packets: Sequence[Bytes]) -> list[Vector]:
        """What packets hold: views, or decoded into memory that is kept."""
        n = len(self.x)
        views = self.compressor.views(packets, n)
        if views is not None:
            return views
        while len(self._spare) < len(packets):
            self._spare.append(floats_beside(self.x, n))
        return [
            self.compressor.decode(packet, out) for packet, out in zip(packets, self._spare, strict=False)
        ]

    def _decoded(self, own: Bytes) -> Vector:
        """What the own packet holds; the vector itself where nothing is lost."""
        if self.compressor.views([own], len(self.x)) is not None:
            return self.x
        if len(self._own) < len(self.x):
            self._own = floats_beside(self.x, len(self.x))
        return self.compressor.decode(own, self._own)

    def _loss(self, model: Vector) -> float:
        if self.judge is None:
            raise ConfigError(
                f"{self._rule.name} asks for the loss of neighbours' models on the own batch; say how with "
                "optimizer.judge(loss), loss() a number for the model as it is, before every step"
            )
        return self.judge(model)


@dataclass(frozen=True)
class RobustAlgorithm(Algorithm):
    """Local steps, and gossip that liars among the neighbours cannot bend far.

    Args:
        f: neighbours of any rank that may be anything.
        order: "atc" adapts, then combines; "cta" combines the models of before the gradient.
    """

    budget: ClassVar[int] = 3
    robust: ClassVar[bool] = True
    on_gpu: ClassVar[bool] = True
    name: ClassVar[str] = ""
    condition: ClassVar[str] = ""
    """What ``least`` says, in words."""
    asks_pairs: ClassVar[bool] = False
    """Whether the rule asks for inner products (``Heard.gram``)."""
    f: int = 1
    order: Order = "atc"

    def __post_init__(self) -> None:
        check_order(self.name, self.order)
        if self.f < 0:
            raise ConfigError(f"{self.name}.f must be at least 0, got {self.f}")

    @abstractmethod
    def least(self, f: int, m: int) -> int:
        """The fewest neighbours among which f may be anything, if m are heard."""

    def coefficients(self, heard: Heard) -> Weights:
        """The weight a_j of every neighbour, shape (m,)."""
        raise NotImplementedError(f"{type(self).__name__} mixes by itself")

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse weights that let the mean drift, compressors that drop most, and ranks that hear too few."""
        require_doubly_stochastic(self.name, topology)
        require_whole_model(self.name, compressor)
        self.check_neighbours(topology)

    def check_neighbours(self, topology: Topology) -> None:
        """Raise ConfigError, with the numbers, if some rank hears too few for f."""
        rank, m = fewest_neighbours(topology)
        if topology.size > 1 and m < self.least(self.f, m):
            raise ConfigError(
                f"{self.name} with f={self.f} needs {self.condition} = {self.least(self.f, m)} neighbours of "
                f"every rank, and rank {rank} hears {m} on {topology.name} of {topology.size} ranks; use a "
                "denser graph, such as random-regular:degree=6 or complete, or a smaller f"
            )

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Applies the rule's weights."""
        return RobustMixer(x, compressor, degree, self)

    def beside(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """Buffers are as open to lies as parameters, and mixed by the same rule."""
        return self.mixer(x, compressor, degree)


def fewest_neighbours(topology: Topology) -> tuple[int, int]:
    """(rank, count): who hears the fewest others in any round of a period, of those that take part."""
    rounds = range(topology.period or _ROUNDS)
    ranks = topology.members if isinstance(topology, Members) else range(topology.size)
    counts = ((len(topology.neighbors(rank, t)), rank) for t in rounds for rank in ranks)
    count, rank = min(counts)
    return rank, count
