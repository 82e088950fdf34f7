"""Which rule survives which attack: Fashion-MNIST, 16 ranks, graphs x splits x rules x attacks, 3 seeds.

Softmax regression (7,850 parameters), so that a cell takes seconds; ``byzantine_run`` says how. Every row has
the accuracy of the honest ranks' mean model and, in its settings, of the worst honest rank, beside plain
gossip that nobody attacks. Cells are written to runs/byzantine-cells.jsonl in the current directory as they
come, and not run again: a suite that was stopped goes on where it was. ``--only TEXT`` takes rows whose name
holds TEXT, such as "alie" or "complete, iid".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pydec.errors import ConfigError

from .byzantine_run import Cell, run
from .harness import Options, Row, threads

RANKS = 16
GRAPHS = {"complete": 3, "random-regular:degree=6": 2, "ring": 1}
"""Liars on each; a ring allows few rules any."""
SPLITS = {"iid": 0.0, "Dirichlet 1": 1.0, "Dirichlet 0.1": 0.1}
RULES = (
    "dpsgd",
    "cs-plus",
    "gts",
    "clipped-gossip",
    "nna",
    "ios",
    "nnm+trimmed-mean",
    "trimmed-mean",
    "median",
    "geometric-median",
    "krum",
)
ATTACKS = (
    "none",
    "sign-flip",
    "alie",
    "ipm",
    "label-flip",
    "mimic",
    "dissensus",
    "spectral",
    "sparse-alie",
    "equivocation",
    "huge",
)
SEEDS = 3
CELLS = Path("runs/byzantine-cells.jsonl")


def rows(options: Options) -> Iterator[Row]:
    """One row for each graph, split, rule and attack; combinations that the rule refuses are left out."""
    known = _known() if not options.quick else {}
    seeds = 1 if options.quick else SEEDS
    for graph, liars in GRAPHS.items():
        for words, alpha in SPLITS.items():
            base = Cell("dpsgd", "none", graph, RANKS, liars, alpha, 0)
            if options.quick:
                base = replace(base, ranks=8, liars=1, steps=3, images=1000)
            reference: float | None = None
            for rule in RULES:
                for attack in ATTACKS:
                    cell = replace(base, rule=rule, attack=attack)
                    name = f"{graph}, {words}: {rule}, {attack}"
                    is_reference = (rule, attack) == ("dpsgd", "none")
                    if options.only and options.only not in name and not is_reference:
                        continue
                    cells = [replace(cell, seed=seed) for seed in range(seeds)]
                    if not all(map(_fits, cells)):
                        continue
                    found = [_cell(each, known, options) for each in cells]
                    averaged = [each["averaged"] for each in found]
                    if is_reference:
                        reference = float(np.mean(averaged))
                    yield _row(name, cell, found, None if is_reference else reference)


def _row(name: str, cell: Cell, found: list[dict[str, Any]], reference: float | None) -> Row:
    value = float(np.mean([each["averaged"] for each in found]))
    params = {
        "rule": cell.rule,
        "attack": cell.attack,
        "graph": cell.graph,
        "ranks": cell.ranks,
        "liars": cell.liars,
        "alpha": cell.alpha,
        "steps": cell.steps,
        "seeds": len(found),
        "deviation": round(float(np.std([each["averaged"] for each in found])), 2),
        "worst_rank": round(float(np.mean([each["worst"] for each in found])), 2),
        "mean_rank": round(float(np.mean([each["each"] for each in found])), 2),
    }
    if reference is None:
        return Row("byzantine", name, params, value, "%")
    return Row("byzantine", name, params, value, "%", "gossip, no attack", reference, value / reference)


def _fits(cell: Cell) -> bool:
    try:
        cell.check()
    except ConfigError:
        return False
    return True


def _known() -> dict[str, dict[str, Any]]:
    if not CELLS.exists():
        return {}
    lines = CELLS.read_text(encoding="utf-8").splitlines()
    return {entry["cell"]: entry["found"] for entry in map(json.loads, lines)}


def _cell(cell: Cell, known: dict[str, dict[str, Any]], options: Options) -> dict[str, Any]:
    if cell.key not in known:
        with threads(1):
            known[cell.key] = run(cell)
        if not options.quick:
            CELLS.parent.mkdir(parents=True, exist_ok=True)
            with CELLS.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"cell": cell.key, "found": known[cell.key]}) + "\n")
    return known[cell.key]
