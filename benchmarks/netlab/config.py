"""What a race is: read by those who start it and by every rank."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Race:
    """What is raced.

    Args:
        method: a name in ``racers.PEERS``, or "pydec".
        options: of the method.
        task: specification.
        steps: the most that are taken.
        evaluate_every: steps between evaluations of the averaged model.
        optimizer: specification of the local optimiser; the task's own if empty.
        lr: learning rate; the task's own if 0. Falls to 0 as a cosine over ``steps``.
        batch_size: of each rank; the task's own if 0.
        seed: of the model, the split and the batches.
        limit_s: seconds of training after which the race ends.
        target: score at which it ends; none if None.
        slow_rank: a rank whose computing takes ``slowdown`` times as long; none if negative.
        slowdown: see ``slow_rank``.
    """

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    task: str = "fashion-mnist"
    steps: int = 2000
    evaluate_every: int = 100
    optimizer: str = ""
    lr: float = 0.0
    batch_size: int = 0
    seed: int = 1
    limit_s: float = 1e9
    target: float | None = None
    slow_rank: int = -1
    slowdown: float = 1.0
