"""Robust gossip by a rule on the set of the own model and the neighbours': BRIDGE, any aggregator, RPEL."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydec import aggregate
from pydec.aggregate.pipeline import Pipeline
from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Mixer, Order, robust_rules
from pydec.gossip.checks import require_whole_model
from pydec.gossip.memory import floats_beside, subtract
from pydec.gossip.robust.base import Centre, RobustAlgorithm, RobustMixer, Weights, fewest_neighbours
from pydec.topology.base import Topology


class SetMixer(RobustMixer):
    """x_i <- x_i + (rule(q_i and all q_j) - q_i), q what the packets hold."""

    def __init__(
        self, x: Vector, compressor: Compressor, degree: int, rule: SetRule, pipeline: Pipeline
    ) -> None:
        super().__init__(x, compressor, degree, rule)
        self.pipeline = pipeline
        self._result: Vector = floats_beside(x, 0)

    @property
    def state_bytes(self) -> int:
        """As of ``RobustMixer``, and the result."""
        return super().state_bytes + self._result.nbytes

    def place(self, rank: int, topology: Topology) -> None:
        """A rule may depend on the graph."""
        super().place(rank, topology)
        assert isinstance(self._rule, SetRule)
        self.pipeline = self._rule.pipeline(topology)
        self.pipeline.counts = self.counts

    @property
    def f(self) -> int:
        """See ``RobustMixer``."""
        return self.pipeline.f

    def _fits(self, m: int, f: int) -> bool:
        return self.pipeline.most(m + 1) >= f

    def mix(
        self, own: Bytes, centre: Centre, packets: list[Bytes], weights: Weights, far: Weights, f: int
    ) -> None:
        """Apply the rule."""
        if len(self._result) < len(self.x):
            self._result = floats_beside(self.x, len(self.x))
        mine = centre()
        vectors: Sequence[Vector] = [mine, *self.vectors(packets)]
        result = self.pipeline.lowered(f)(vectors, mine, out=self._result)
        if mine is self.x:
            self.x[:] = result
        else:
            self.x += subtract(result, mine, out=result)


@dataclass(frozen=True)
class SetRule(RobustAlgorithm):
    """A rule of ``pydec.aggregate`` on the own model and the neighbours'; the graph's weights do not count.

    Args:
        f: neighbours that may be anything.
        order: see ``RobustAlgorithm``.
    """

    @abstractmethod
    def pipeline(self, topology: Topology | None = None) -> Pipeline:
        """The rule, anew; that of a rank of the topology where it depends on it."""

    def least(self, f: int, m: int) -> int:
        """See ``RobustAlgorithm``; the rule itself says more."""
        return 0

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse compressors that drop most of the model, and ranks that hear too few for the rule."""
        require_whole_model(self.name, compressor)
        self.check_neighbours(topology)

    def check_neighbours(self, topology: Topology) -> None:
        """See ``RobustAlgorithm``."""
        if topology.size < 2:
            return
        rank, m = fewest_neighbours(topology)
        try:
            self.pipeline(topology).check(m + 1)
        except ConfigError as error:
            raise ConfigError(
                f"{error}: rank {rank} hears {m} others on {topology.name} of {topology.size} ranks; use a "
                "denser graph, such as random-regular:degree=6 or complete, or a smaller f"
            ) from None

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """See ``Algorithm``."""
        return SetMixer(x, compressor, degree, self, self.pipeline())


@dataclass(frozen=True)
class NeighbourhoodAverage(SetRule):
    """x_i <- rule(x_i and the neighbours' models); ``gossip.make("nnm+trimmed-mean:f=2")`` makes it.

    Args:
        f: neighbours that may be anything, for parts of the rule that do not say.
        order: see ``RobustAlgorithm``.
        spec: of the rule, see ``pydec.aggregate.make``.

    Breakdown: that of the rule, among m + 1 vectors.
    """

    name: ClassVar[str] = "robust average"
    spec: str = "trimmed-mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.pipeline()

    def pipeline(self, topology: Topology | None = None) -> Pipeline:
        """See ``SetRule``."""
        return aggregate.make(self.spec, f=self.f)


@robust_rules.register("bridge")
@dataclass(frozen=True)
class Bridge(SetRule):
    """BRIDGE: coordinate by coordinate over the own model and the neighbours', with the gradient of before.

    Args:
        f: neighbours that may be anything.
        order: "cta" is the source's.
        average: "trimmed-mean" (BRIDGE-T) or "median" (BRIDGE-M).

    Breakdown: at least 2 f neighbours. To agree, every graph that is left when f edges into every honest rank
    are removed must have a rank that reaches all others, which is not checked.

    Source: Fang, Yang, Bajwa, "BRIDGE: Byzantine-Resilient Decentralized Gradient Descent", IEEE TSIPN 2022,
    arXiv:1908.08649, algorithm 1.
    """

    name: ClassVar[str] = "bridge"
    order: Order = "cta"
    average: Literal["trimmed-mean", "median"] = "trimmed-mean"

    def pipeline(self, topology: Topology | None = None) -> Pipeline:
        """See ``SetRule``."""
        return aggregate.make(self.average, f=self.f)


@robust_rules.register("rpel")
@dataclass(frozen=True)
class RPEL(SetRule):
    """Random pulls: every round a few other neighbours, O(n log n) messages, and NNM + trimmed mean of them.

    Needs a graph that draws s neighbours anew in every round, such as epidemic:s=8. The rule is told of b
    liars among the s, b the least number that no honest rank exceeds in any round but with probability
    ``delta``: the number of liars among s drawn from n - 1 ranks is hypergeometric.

    Args:
        f: ranks of the whole job that may be anything.
        order: see ``RobustAlgorithm``.
        horizon: rounds of the whole run.
        delta: probability that b is exceeded anywhere.

    Breakdown: s + 1 >= 2 b + 1.

    Source: "Robust and Efficient Collaborative Learning" (RPEL), 2025, arXiv:2510.08311.
    """

    name: ClassVar[str] = "rpel"
    horizon: int = 1000
    delta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < 1 or not 0.0 < self.delta < 1.0:
            raise ConfigError(
                f"rpel needs horizon >= 1 and delta in (0, 1), got horizon={self.horizon}, delta={self.delta}"
            )

    def pipeline(self, topology: Topology | None = None) -> Pipeline:
        """See ``SetRule``."""
        b = self.f if topology is None else self.effective(topology.size, topology.degree)
        return aggregate.make("nnm+trimmed-mean", f=b)

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Refuse graphs whose neighbourhoods are not drawn anew."""
        if topology.size > 1 and topology.period and topology.degree < topology.size - 1:
            raise ConfigError(
                f"rpel needs other random neighbours in every round, and those of {topology.name} repeat; "
                "use topology epidemic:s=8, or cs-plus on this one"
            )
        super().check(topology, compressor)

    def effective(self, n: int, s: int) -> int:
        """b for n ranks of which each hears s others in a round."""
        if n < 2 or not self.f:
            return 0
        most = min(self.f, n - 1)
        allowed = self.delta / (self.horizon * max(1, n - self.f))
        tail, b = 0.0, min(most, s)
        while b > 0:
            tail += hypergeometric(n - 1, most, s, b)
            if tail > allowed:
                break
            b -= 1
        return b


def hypergeometric(population: int, bad: int, drawn: int, count: int) -> float:
    """Probability of ``count`` bad ones among ``drawn`` of a population."""
    ways = math.comb(bad, count) * math.comb(population - bad, drawn - count) if drawn >= count else 0
    return ways / math.comb(population, drawn)
