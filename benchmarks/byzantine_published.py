"""The settings of published tables on Fashion-MNIST: which rule survives what, beside what was published.

He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", 2022, arXiv:2202.01545;
figures from the logs in the authors' repository: MNIST, a CNN, 900 steps. Data and model differ, so what is
compared is who survives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .byzantine_graphs import WEIGHTS
from .byzantine_run import Cell
from .harness import Options, Row

Run = Callable[[Cell], dict[str, Any]]

_SMALL, _LARGE = "clipped-gossip:radius=0.1", "clipped-gossip:radius=1"
ATTACKS = {"alie": "alie:z=10", "ipm": "ipm:eps=0.1", "dissensus": "dissensus:eps=1.5"}
RING: dict[str, dict[str, tuple[float, ...]]] = {
    "ring, 2 liars each": {
        _SMALL: (94.08, 91.15, 89.43),
        "geometric-median": (9.81, 11.35, 89.30),
        "trimmed-mean": (11.35, 84.81, 90.25),
        "ubar": (95.23, 95.23, 95.23),
        "gts": (),
        "spectral-filter": (),
    },
    "ring, 2 liars each and 1 more": {
        _SMALL: (94.18, 91.54, 90.11),
        "geometric-median": (9.81, 11.35, 9.81),
        "trimmed-mean": (9.81, 11.35, 9.81),
        "ubar": (95.65, 95.65, 93.63),
        "gts": (),
        "spectral-filter": (),
    },
}
"""By attack, in the order of ``ATTACKS``."""
CLIQUES = {
    "dpsgd": (93.65, 69.0, 75.6),
    _LARGE: (93.77, 71.4, 72.6),
    "geometric-median": (88.64, 50.7, 47.3),
    "trimmed-mean": (86.90, 50.7, 47.3),
    "ubar": (86.24, 50.7, 47.2),
    "gts": (),
    "spectral-filter": (),
    "cs-plus": (),
}
"""Mean model, mean model of each clique; each clique has half of the classes, and nobody lies."""
BRIDGE = (88.71, 77.60, 45.49, 20.42, 19.36)
"""With ``WEIGHTS`` of the liar, clipped gossip of radius 1 under dissensus."""
MODELS = {"": ("linear", 200, 0.02), ", CNN": ("cnn", 400, 0.05)}
"""What is added to a graph's name; the model, its steps and their size."""


def rows(run: Run, options: Options) -> Iterator[Row]:
    """One row for each published figure, and for pydec's defaults, which have none."""
    for name, cell, published in _cells():
        if options.only and options.only not in name:
            continue
        ours = replace(cell, steps=3, images=1000) if options.quick else cell
        found = run(ours)
        params = {
            "steps": ours.steps,
            "worst_rank": round(found["worst"], 1),
            "halves": " and ".join(f"{value:.1f}" for value in found["halves"]),
        }
        if published[1:]:
            params["published_halves"] = " and ".join(map(str, published[1:]))
        peer = ("published, MNIST", published[0]) if published else (None, None)
        yield Row("byzantine", name, params, found["averaged"], "%", *peer)


def _cells() -> Iterator[tuple[str, Cell, tuple[float, ...]]]:
    for words, (model, steps, lr) in MODELS.items():
        how = {"model": model, "steps": steps, "lr": lr}
        for graph, rules in list(RING.items())[: 1 if words else None]:
            for rule, published in rules.items():
                for place, (attack, spec) in enumerate(ATTACKS.items()):
                    ranks = 15 + (graph != next(iter(RING)))
                    cell = Cell(rule, spec, graph, ranks, 0, 0.0, 0, f=2, **how)
                    yield f"{graph}{words}: {rule}, {attack}", cell, published[place : place + 1]
        for rule, published in CLIQUES.items():
            cell = Cell(rule, "none", "two cliques of 10", 20, 0, -1.0, 0, f=1, **how)
            yield f"two cliques of 10, no attack{words}: {rule}", cell, published
        for weight, score in zip(WEIGHTS, BRIDGE, strict=True) if not words else ():
            graph, ranks = f"bridge, liar's weight {weight:g}", 10 + (weight > 0)
            cell = Cell(_LARGE, "dissensus:eps=1.5", graph, ranks, 0, -1.0, 0, f=1, **how)
            yield f"{graph}, dissensus{words}: {_LARGE}", cell, (score,)
