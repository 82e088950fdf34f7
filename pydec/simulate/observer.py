"""What is seen of a simulation: losses, distances, bytes and times, step by step."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.simulate.learner import Learner, Vector

Row = dict[str, float | int]


@dataclass(eq=False)
class _Sum:
    """Of honest peers after a step; relative to the first of them, so that little is lost to rounding."""

    centre: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: float = 0.0
    count: int = 0
    losses: list[float] = field(default_factory=list)

    def add(self, numbers: Vector, parameters: int) -> None:
        apart = numbers - self.centre
        self.total += apart
        self.squares += float(apart[:parameters] @ apart[:parameters])
        self.count += 1

    def distance(self, parameters: int) -> float:
        """Root mean square distance to the mean."""
        mean = self.total[:parameters] / self.count
        return math.sqrt(max(0.0, self.squares / self.count - float(mean @ mean)))

    def mean(self) -> Vector:
        """The average of all numbers."""
        found: Vector = (self.centre + self.total / self.count).astype(np.float32)
        return found


class Observer:
    """Hears what peers do, and writes a row when the last of them has done a step.

    Args:
        parameters: how many of a learner's numbers are parameters.
        steps: of every peer.
        log_every: steps between rows.
        eval_every: steps between evaluations of the averaged model.
        liars: who does not count.
        evaluate: loss and metric of a model.
        show: called with every row.

    Attributes:
        rows: what was seen.
        final: numbers of every honest peer that came to the end, by place, if asked for; else empty.
    """

    def __init__(
        self,
        parameters: int,
        steps: int,
        log_every: int,
        eval_every: int,
        liars: Collection[int],
        evaluate: Callable[[Vector], Mapping[str, float]],
        show: Callable[[Row], None] = lambda row: None,
        *,
        keep: bool = False,
    ) -> None:
        self.rows: list[Row] = []
        self.final: dict[int, Vector] = {}
        self.bytes_sent = self.dropped = self.died = self.joined = self.finished = 0
        self.end: _Sum | None = None
        self._parameters, self._steps, self._keep = parameters, steps, keep
        self._log_every, self._eval_every = log_every, eval_every
        self._liars, self._evaluate, self._show = frozenset(liars), evaluate, show
        self._at: Counter[int] = Counter()  # living peers by steps taken
        self._least = 0
        self._open: dict[int, _Sum] = {}

    def came(self, steps: int) -> None:
        """A peer is there, and has taken so many steps."""
        self._at[steps] += 1

    def left(self, steps: int) -> None:
        """A peer has died after so many steps."""
        self._at[steps] -= 1
        self.died += 1

    def stepped(self, rank: int, steps: int, learner: Learner) -> None:
        """A peer has taken its step of that number."""
        self._at[steps - 1] -= 1
        self._at[steps] += 1
        if rank not in self._liars and (steps % self._log_every == 0 or steps == self._steps):
            found = self._open.get(steps)
            if found is None:
                found = self._open[steps] = _sum(learner)
            found.add(learner.numbers(), self._parameters)
            found.losses.append(learner.loss)

    def ended(self, rank: int, learner: Learner) -> None:
        """A peer is through."""
        self.finished += 1
        if rank in self._liars:
            return
        if self.end is None:
            self.end = _sum(learner)
        self.end.add(learner.numbers(), self._parameters)
        if self._keep:
            self.final[rank] = learner.numbers().copy()

    def look(self, now_s: float) -> None:
        """After an event: write the rows of steps that all have taken."""
        while self._least < self._steps and not self._at[self._least]:
            del self._at[self._least]
            self._least += 1
            if self._least in self._open:
                self._write(self._least, self._open.pop(self._least), now_s)

    def _write(self, step: int, found: _Sum, now_s: float) -> None:
        known = [loss for loss in found.losses if math.isfinite(loss)]
        row: Row = {"step": step, "time_s": now_s, "peers": self.peers}
        if known:
            row["loss"] = float(np.mean(known))
        row["consensus_distance"] = found.distance(self._parameters)
        row["bytes_sent"] = self.bytes_sent
        if step % self._eval_every == 0 and step < self._steps:
            row.update({f"validation_{key}": value for key, value in self._evaluate(found.mean()).items()})
        self.rows.append(row)
        self._show(row)

    @property
    def peers(self) -> int:
        """How many live."""
        return sum(self._at.values())

    def outcome(self) -> dict[str, Any]:
        """What came out at the end."""
        if self.end is None:
            return {"consensus_distance": math.nan}
        return {"consensus_distance": self.end.distance(self._parameters), **self._evaluate(self.end.mean())}


def _sum(learner: Learner) -> _Sum:
    first = learner.numbers().astype(np.float64)
    return _Sum(first, np.zeros(len(first)))
