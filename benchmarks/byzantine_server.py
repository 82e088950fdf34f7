"""The setting of a published table: workers send momentum to a server, which averages it with a robust rule.

Karimireddy, He, Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022,
arXiv:2006.09365; figures from the logs in the authors' repository: MNIST, a CNN, 25 workers of which 5 lie,
600 steps, each honest worker's data of one class or two. Here Fashion-MNIST at 14 x 14 and a smaller CNN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pydec import aggregate
from pydec.aggregate import attacks
from pydec.aggregate.attacks import Scene

from .byzantine_models import CLASSES, MODELS
from .byzantine_run import data_of
from .harness import Options, Row

Once = Callable[["Served", Callable[["Served"], dict[str, Any]]], dict[str, Any]]

WORKERS, LIARS = 25, 5
STEPS, LR, MOMENTUM, BATCH = 400, 0.01, 0.9, 32
ATTACKS = ("bit-flip", "label-flip", "mimic", "ipm:eps=0.1", "alie:z=0")
PUBLISHED = {
    "krum": ((9.9, 1.1, 37.0, 10.0, 11.4), (27.0, 43.8, 64.6, 41.6, 10.2)),
    "median": ((44.6, 46.7, 54.6, 32.1, 9.9), (60.3, 71.5, 82.7, 59.9, 39.2)),
    "geometric-median": ((84.2, 96.2, 86.4, 11.3, 11.4), (97.0, 97.6, 97.3, 96.2, 68.8)),
    "centred-clipping:radius=10": ((97.8, 97.8, 97.9, 97.8, 98.2), (97.9, 97.9, 98.0, 97.9, 98.1)),
}
"""By attack, without and with bucketing of two."""
OURS = ("caf", "nnm+trimmed-mean")
BUCKETS = ("", "bucketing:size=2+")


@dataclass(frozen=True)
class Served:
    """One run.

    Args:
        rule: of the server, see ``pydec.aggregate.make``.
        attack: of the liars; "none" has none.
        seed: of batches and attacks.
        steps, images: how much of it.
    """

    rule: str
    attack: str
    seed: int = 0
    steps: int = STEPS
    images: int = 20_000

    @property
    def key(self) -> str:
        """What tells it from others."""
        return repr(self)


def run(cell: Served, data: Any = None) -> dict[str, Any]:
    """``averaged``, the accuracy of the server's model in percent.

    Args:
        cell: what to run.
        data: see ``byzantine_run.run``.
    """
    train, test = data or (data_of("train", cell.images), data_of("t10k", 5000))
    model = MODELS["cnn"]
    lying = cell.attack != "none"
    attack = attacks.make(cell.attack) if lying else None
    rule = aggregate.make(cell.rule, f=LIARS, seed=cell.seed)
    x = model.start()
    velocity = np.zeros((WORKERS, model.size), np.float32)
    update = np.zeros(model.size, np.float32)
    shares = shares_of(train[1])
    draw, lies = np.random.default_rng([cell.seed, 1]), np.random.default_rng([cell.seed, 2])
    memory: dict[str, Any] = {}
    for t in range(cell.steps):
        rows = np.stack([share[draw.integers(len(share), size=BATCH)] for share in shares])
        images, labels = train[0][rows], train[1][rows]
        if attack is not None and attack.flips_labels:
            labels[-LIARS:] = CLASSES - 1 - labels[-LIARS:]
        velocity = MOMENTUM * velocity + model.gradients(np.tile(x, (WORKERS, 1)), images, labels)
        sent = list(velocity)
        if attack is not None:
            scene = Scene(
                velocity[-1], velocity[:-LIARS], n=WORKERS, f=LIARS, round=t, draw=lies, memory=memory
            )
            lie = attack.craft(scene)
            sent[-LIARS:] = [np.ascontiguousarray(lie, np.float32)] * LIARS
        update = np.array(rule(sent, own=update))
        x = x - np.float32(LR) * update
    return {"averaged": model.accuracy(x, *test)}


def shares_of(labels: np.ndarray) -> list[np.ndarray]:
    """Images sorted by label and cut among the honest workers; liars, the last ones, have all."""
    order = np.argsort(labels, kind="stable")
    return [*np.array_split(order, WORKERS - LIARS), *[order] * LIARS]


def rows(once: Once, options: Options) -> Iterator[Row]:
    """One row for each published figure, and for some rules that it has not.

    Args:
        once: runs a cell, or knows what it gave.
        options: of the suite.
    """
    for rule in (*PUBLISHED, *OURS):
        for way, before in enumerate(BUCKETS if rule in PUBLISHED else BUCKETS[:1]):
            for place, attack in enumerate(ATTACKS):
                name = f"server, 5 of 25 lie, one class each: {before}{rule}, {attack}"
                if options.only not in name:
                    continue
                cell = Served(before + rule, attack)
                if options.quick:
                    cell = Served(before + rule, attack, steps=3, images=1000)
                found = once(cell, run)
                peer = (
                    ("published, MNIST", PUBLISHED[rule][way][place]) if rule in PUBLISHED else (None, None)
                )
                yield Row("byzantine", name, {"steps": cell.steps}, found["averaged"], "%", *peer)
