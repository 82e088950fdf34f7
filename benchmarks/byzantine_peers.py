"""Rules of ByzFL and byzpy as averages of a rank's own model and its neighbours', for the table of attacks.

Those that define a rule as pydec does (median, trimmed mean, MDA, NNM before them: ``suite_aggregate`` checks
it) have pydec's rows; here are those that do not, as they come. Nothing is left out before them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pydec.compress.base import Bytes, Compressor, Vector
from pydec.errors import ConfigError
from pydec.gossip.base import Algorithm, Mixer
from pydec.gossip.dpsgd import AverageMixer
from pydec.topology.base import Topology

from .libraries import library, part

Average = Callable[[list[np.ndarray]], Any]

RULES = (
    "byzfl krum",
    "byzfl multi-krum",
    "byzfl geometric-median",
    "byzfl centred-clipping",
    "byzfl caf",
    "byzfl monna",
    "byzpy median",
    "byzpy geometric-median",
)
DRAWN = ("byzfl caf",)
"""Rules whose answer is drawn: ByzFL's CAF takes one step of the power method from a random vector."""
RADIUS = 1.0
"""Of ByzFL's centred clipping, He et al.'s for MNIST; its default of 100 clips nothing here."""


def available(rule: str) -> bool:
    """Whether its library is installed."""
    return not isinstance(library(rule.partition(" ")[0]), str)


def average(rule: str, f: int) -> Average:
    """The rule, anew: some keep what they saw.

    Args:
        rule: one of ``RULES``.
        f: vectors that may be anything.
    """
    name, _, kind = rule.partition(" ")
    if name == "byzpy":
        return _byzpy(kind)
    rules = part("byzfl.aggregators.aggregators")
    made = {
        "krum": lambda: rules.Krum(f=f),
        "multi-krum": lambda: rules.MultiKrum(f=f),
        "geometric-median": rules.GeometricMedian,
        "centred-clipping": lambda: rules.CenteredClipping(L=1, tau=RADIUS),
        "caf": lambda: rules.CAF(f=f),
        "monna": lambda: rules.MoNNA(f=f, idx=0),
    }
    return made[kind]()


def _byzpy(kind: str) -> Average:
    import torch

    where = "byzpy.aggregators."
    rule = {
        "median": lambda: part(where + "coordinate_wise.median").CoordinateWiseMedian(),
        "geometric-median": lambda: part(where + "geometric_wise.geometric_median").GeometricMedian(),
    }[kind]()
    return lambda vectors: rule.aggregate([torch.from_numpy(v) for v in vectors]).numpy()


@dataclass(frozen=True)
class Foreign(Algorithm):
    """Gossip with another library's rule.

    Args:
        spec: one of ``RULES``.
        f: vectors that may be anything.
    """

    budget: ClassVar[int] = 2
    spec: str = RULES[0]
    f: int = 0

    @property
    def draws(self) -> bool:
        """Whether it gives another answer every time."""
        return self.spec in DRAWN

    def check(self, topology: Topology, compressor: Compressor) -> None:
        """Raise ConfigError if its library is not there, or refuses so few vectors."""
        if not available(self.spec):
            raise ConfigError(f"{self.spec}: its library is not installed")
        n = 1 + min(len(topology.neighbors(rank, 0)) for rank in range(topology.size))
        try:
            average(self.spec, self.f)([np.full(4, k, np.float32) for k in range(n)])
        except (ValueError, IndexError, AssertionError) as error:
            raise ConfigError(f"{self.spec} with f={self.f} refuses {n} vectors: {error}") from None

    def mixer(self, x: Vector, compressor: Compressor, degree: int) -> Mixer:
        """One that applies it."""
        return _ForeignMixer(x, compressor, degree, average(self.spec, self.f))


class Endless(Exception):
    """A rule gave no answer in ``PATIENCE_S``: ByzFL's CAF has none for vectors of 1e30."""


PATIENCE_S = 20.0


def _answer(rule: Average, vectors: list[np.ndarray]) -> Any:
    def ended(signum: int, frame: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        return rule(vectors)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class _ForeignMixer(AverageMixer):
    def __init__(self, x: Vector, compressor: Compressor, degree: int, rule: Average) -> None:
        super().__init__(x, compressor, degree)
        self._rule = rule

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """The rule of all, the own model first."""
        start, stop = self.buckets[bucket]
        views = self.compressor.views([own, *packets], stop - start)
        assert views is not None  # packets of "none" are the vectors
        with np.errstate(all="ignore"):
            self.x[start:stop] = np.asarray(_answer(self._rule, [np.array(v) for v in views])).reshape(-1)


def foreign(rule: str, f: int) -> Foreign:
    """Gossip with that rule.

    Raises:
        ConfigError: no such rule.
    """
    if rule not in RULES:
        raise ConfigError(f"no rule {rule!r} of another library; there are {', '.join(RULES)}")
    return Foreign(spec=rule, f=f)
