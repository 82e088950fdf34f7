"""What a rule is: an average of n vectors that f of them, which may be anything, cannot move far.

A rule states the fewest vectors that an f needs (its breakdown condition) and is refused with fewer. It keeps
nothing between calls; ``pipeline.py`` chains steps and a rule, and leaves out what no rule should see.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pydec.aggregate.inputs import Inputs, Matrix, Sorting
from pydec.errors import ConfigError
from pydec.registry import Registry


@dataclass(frozen=True)
class Part:
    """A rule, or a step before one.

    Args:
        f: vectors that may be anything, at least 0.

    Raises:
        ConfigError: f is less than 0.
    """

    geometric: ClassVar[bool] = True
    """Whether it looks at inner products of whole vectors."""
    slope: ClassVar[int] = 2
    """An f needs n >= slope f + offset vectors."""
    offset: ClassVar[int] = 1
    """See ``slope``."""
    f: int = 1

    def __post_init__(self) -> None:
        if self.f < 0:
            raise ConfigError(f"f must be at least 0, got {self.f}")

    def least(self, f: int) -> int:
        """The fewest vectors that f of them may be anything among."""
        return self.slope * f + self.offset

    def most(self, n: int) -> int:
        """The largest f that n vectors allow; negative if they are too few for any."""
        if n < self.offset:
            return -1
        return (n - self.offset) // self.slope if self.slope else n

    def check(self, n: int, f: int, name: str) -> None:
        """Raise ConfigError, with the numbers, unless n vectors may hold f liars."""
        if n >= self.least(f):
            return
        allowed = self.most(n)
        raise ConfigError(
            f"{name} with f={f} needs n >= {self.slope} f + {self.offset} = {self.least(f)} vectors, got {n}"
            + (f"; the largest f for {n} is {allowed}" if allowed >= 0 else "; give it more vectors")
        )


class Aggregator(Part):
    """A rule: n vectors of shape (d,) become one."""

    @property
    def kernel(self) -> Sorting | None:
        """Of rules that sort every coordinate, and so find the largest magnitude by the way."""
        return None

    @abstractmethod
    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """Write the average.

        Args:
            x: at least ``least(f)`` finite vectors.
            f: how many of them may be anything; at most the rule's own.
            out: shape (d,), overwritten; may be one of the vectors or the centre.
        """


class PreAggregator(Part):
    """A step before a rule: n vectors become m, each a weighted sum of the n."""

    def left(self, n: int) -> int:
        """How many vectors n of them become: as many, unless overridden."""
        return n

    @abstractmethod
    def matrix(self, x: Inputs, f: int, draw: np.random.Generator) -> Matrix:
        """The weights, float64, shape (left(n), n); see ``Inputs.mixed``.

        Args:
            x: at least ``least(f)`` finite vectors.
            f: how many of them may be anything.
            draw: random numbers of this call.
        """


aggregators: Registry[Aggregator] = Registry("aggregator")
preaggregators: Registry[PreAggregator] = Registry("pre-aggregator")


def nearest(distances: Matrix, count: int) -> list[list[int]]:
    """For every vector the ``count`` nearest ones, itself among them, in order; ties to the lower number."""
    far = distances.copy()
    np.fill_diagonal(far, -1.0)
    return [np.argsort(row, kind="stable")[:count].tolist() for row in far]
