"""Peers that learn nothing: each has a vector, and gossip alone is simulated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pydec.gossip.base import Mixer
from pydec.gossip.memory import aligned_floats
from pydec.optim.parts import Part
from pydec.optim.plan import Plan
from pydec.simulate.batched import RowGradients
from pydec.simulate.learner import Learner, Vector

_AT_ONCE = 1024  # vectors drawn at a time


def fill(matrix: NDArray[np.float32], seed: int) -> None:
    """Draw the vectors that all begin with: independent standard normal numbers, float32 (n, d)."""
    draw = np.random.default_rng([seed, 14])
    for start in range(0, len(matrix), _AT_ONCE):
        part = matrix[start : start + _AT_ONCE]
        part[:] = draw.standard_normal(part.shape, np.float32)


class VectorLearner:
    """One peer's vector. See ``Learner``.

    Args:
        x: shape (d,).
        plan: how it gossips.
    """

    def __init__(self, x: Vector, plan: Plan) -> None:
        self.loss = math.nan
        self.x = x
        rule = plan.algorithm.rule(x, plan.compressor, plan.topology.degree, plan.local_steps)
        rule.arrange([(0, len(x), 1)])
        self.parts = [Part(rule, 0, {"lr": 0.0}, RowGradients(x, (), 0))]
        self.beside: Sequence[Mixer] = ()

    def ask(self, rate: float) -> None:
        """Nothing is learned."""

    def gradient(self) -> bool:
        """There is none, and no local step."""
        return False

    def step(self) -> None:
        """Never called."""

    end_step = load = load_beside = store = step

    def numbers(self) -> Vector:
        """The vector."""
        return self.x


class Vectors:
    """See ``Learners``.

    Args:
        size: number of peers.
        length: of every vector.
        plan_of: how a peer gossips, by its number.
        seed: what the vectors are drawn from.
    """

    def __init__(self, size: int, length: int, plan_of: Callable[[int], Plan], seed: int) -> None:
        self.parameters, self._plan_of, self._size, self._seed = length, plan_of, size, seed

    def allocate(self) -> None:
        """See ``Learners.allocate``."""
        padded = -(-self.parameters // 16) * 16  # rows begin on a cache line
        self._x = aligned_floats(self._size * padded).reshape(self._size, padded)[:, : self.parameters]
        fill(self._x, self._seed)

    def make(self, rank: int, *, like: Learner | None = None, steps: int = 0) -> VectorLearner:
        """See ``Learners.make``."""
        if like is not None:
            self._x[rank] = like.numbers()
        return VectorLearner(self._x[rank], self._plan_of(rank))

    def leave(self, learner: Learner) -> None:
        """Nothing is under way."""

    def evaluate(self, numbers: Vector) -> dict[str, float]:
        """There is nothing to score."""
        return {}

    @property
    def peer_bytes(self) -> int:
        """See ``Learners.peer_bytes``."""
        return 4 * self.parameters
