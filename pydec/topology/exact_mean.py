"""The exact mean of all ranks in ceil(log2(size)) rounds of one message, whatever the size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pydec.topology.base import check_size

Sum = Literal["inclusive", "exclusive"]


@dataclass(frozen=True)
class MeanStep:
    """What one rank does in one round of an ``ExactMean``.

    Args:
        sends: which of its two sums it sends, as it was before the round.
        to: who gets it.
        source: who sends it a sum of the same kind, to be added to both of its own.
    """

    sends: Sum
    to: int
    source: int


class ExactMean:
    """A plan that gives every rank the mean of all: for a final merge or an evaluation, without all-reduce.

    Every rank i holds two running sums. With m ranks counted so far, ``inclusive`` is
    x_i + x_(i-1) + ... + x_(i-m) and ``exclusive`` is the same without x_i; before the first round they are
    x_i and 0. In each round it sends one of them, adds what it receives to both, and after the
    last round ``inclusive`` is the sum of all x: divide by ``size``. Where a rank sends ``inclusive`` m
    becomes 2 m + 1, otherwise 2 m, so the binary digits of size - 1 are the plan.

    This is no ``Topology``: no product of mixing matrices of one message each does it for every size; it
    takes the second sum. Ranks add in different orders, so results agree up to rounding but not in bits;
    where that matters, one rank's result has to be sent on. If a message is lost, so is the mean.

    Source: Ding, Jin, Ying, Yuan, Yin, "DSGD-CECA: Decentralized SGD with Communication-Optimal Exact
    Consensus Algorithm", ICML 2023, arXiv:2306.00256, the 2-port variant.

    Args:
        size: number of ranks, at least 1.

    Raises:
        ConfigError: ``size`` is not a number of ranks.

    Cost: ceil(log2(size)) rounds; per rank and round one message sent and one received; two
    model-sized sums (one if ``needs_exclusive`` is False) and one receive buffer.
    """

    size: int
    """Number of ranks."""

    def __init__(self, size: int) -> None:
        check_size(size)
        self.size = int(size)
        self._plan: list[tuple[Sum, int]] = []
        counted = 0
        for digit in f"{size - 1:b}" if size > 1 else "":
            if digit == "1":
                self._plan.append(("inclusive", counted + 1))
                counted = 2 * counted + 1
            else:
                self._plan.append(("exclusive", counted))
                counted = 2 * counted

    def __repr__(self) -> str:
        return f"<ExactMean of {self.size} ranks in {self.rounds} rounds>"

    @property
    def rounds(self) -> int:
        """Rounds that it takes: ceil(log2(size))."""
        return len(self._plan)

    @property
    def needs_exclusive(self) -> bool:
        """Whether ``exclusive`` is ever sent; powers of two need only ``inclusive``."""
        return any(sends == "exclusive" for sends, _ in self._plan)

    def step(self, rank: int, round: int) -> MeanStep:
        """What ``rank`` does in that round, 0 <= round < ``rounds``."""
        if not 0 <= rank < self.size:
            raise ValueError(f"rank must be in [0, {self.size}), got {rank}")
        if not 0 <= round < self.rounds:
            raise ValueError(
                f"an exact mean of {self.size} ranks has rounds 0 to {self.rounds - 1}, got {round}"
            )
        sends, distance = self._plan[round]
        return MeanStep(sends, (rank + distance) % self.size, (rank - distance) % self.size)

    def simulate(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every rank's result, for tests and plans: ``x`` and the result have shape (size, ...)."""
        sums = {"inclusive": x.copy(), "exclusive": np.zeros_like(x)}
        for sends, distance in self._plan:
            arrived = np.roll(sums[sends], distance, axis=0)
            for total in sums.values():
                total += arrived
        return sums["inclusive"] / self.size
