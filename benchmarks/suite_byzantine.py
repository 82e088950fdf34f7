"""Which rule survives which attack: Fashion-MNIST, 16 ranks, graphs x splits x rules x attacks.

Softmax regression on images of 14 x 14 (1,970 parameters), 100 steps, so that a cell takes about a second,
and a CNN of 2,698 parameters, 200 steps; ``byzantine_run`` says how. Every row has, for each attack, the
accuracy of the honest ranks' mean model and of the worst of them, and beside its worst case plain gossip that
nobody attacks. pydec's defaults run everywhere; other rules, and other libraries', where ``WHOLE`` says. Then
the settings of published tables, and what robust gossip costs in a step. Three seeds; hours of one core, most
of them for other libraries and the CNN.

Cells are written to runs/byzantine-cells.jsonl in the current directory as they come, and not run again: a
suite that was stopped goes on where it was. ``--only TEXT`` takes rows whose name holds TEXT: ": " leaves out
other libraries and the cost of a step; ``--rounds`` is the number of seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pydec import topology
from pydec.errors import ConfigError
from pydec.gossip.robust import default_rule

from . import byzantine_peers, byzantine_published, byzantine_server
from .byzantine_cost import cost
from .byzantine_run import ABSENT, Cell, run
from .harness import Options, Row, threads

RANKS = 16
GRAPHS = {
    "complete": ("complete", 3),
    "random-regular:degree=6": ("random-regular:degree=6", 2),
    "random-regular:degree=11": ("random-regular:degree=11", 3),
    "random-regular:degree=6, 3 liars": ("random-regular:degree=6", 3),
    "complete, 4 liars": ("complete", 4),
    "ring": ("ring", 1),
}
"""And how many lie. An honest rank hears at most 3, 1, 3, 2, 4 and 1 of them, which makes spectral-filter the
default but on the fourth, where it is cs-plus, and on the ring, where it is clipped-gossip."""
SPLITS = {"Dirichlet 1": 1.0, "iid": 0.0, "Dirichlet 0.1": 0.1}
FEWER = {"random-regular:degree=6, 3 liars": 1, "complete, 4 liars": 2}
"""How many of the splits run: the first is beyond the condition, the second as the complete graph with 3."""
CNN = (
    "complete, Dirichlet 1",
    "complete, iid",
    "random-regular:degree=6, Dirichlet 1",
)
"""Where the CNN runs as well."""
DEFAULTS = ("cs-plus", "spectral-filter", "clipped-gossip")
"""Where the degree makes them; of the last only there."""
RULES = (
    "dpsgd",
    *DEFAULTS,
    "gts",
    "caf",
    "nna",
    "ios",
)
SETS = ("trimmed-mean", "median", "nnm+trimmed-mean")
SAME = {
    "trimmed-mean": "ByzFL and byzpy trimmed-mean",
    "median": "ByzFL median",
    "nnm+trimmed-mean": "ByzFL and byzpy nnm+trimmed-mean",
}
"""Rules of ours that are other libraries' as well, answer for answer; see ``suite_aggregate``."""
WHOLE = {
    "complete, Dirichlet 1": (*RULES, *SETS),
    "complete, Dirichlet 0.1": (*RULES, *SETS),
    "random-regular:degree=6, Dirichlet 1": RULES,
    "ring, Dirichlet 1": RULES,
    "ring, iid": ("dpsgd", *DEFAULTS),
    "ring, Dirichlet 0.1": ("dpsgd", *DEFAULTS),
    "random-regular:degree=6, 3 liars, Dirichlet 1": ("dpsgd", *DEFAULTS),
}
"""Where more run than the defaults, and plain gossip without attack."""
PEERS_SETTING = "complete, Dirichlet 1"
"""Where other libraries' rules run as well."""
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
    "sparse-alie:direction=ipm",
    "equivocation",
    "huge",
)
SHORT = {"sparse-alie:direction=ipm": "sparse-ipm"}
SEEDS = 3
POINTS = 2.0
"""That the default may lose to any attack, as the project set it."""
CELLS = Path("runs/byzantine-cells.jsonl")
_LEAST = 0.1  # points that are told apart


@dataclass(frozen=True)
class Found:
    """Accuracies of one rule in one setting, in percent, means over the seeds.

    Args:
        averaged: of the honest ranks' mean model, by attack.
        worst: of the worst honest rank, by attack.
        seeds: how many.
    """

    averaged: dict[str, float]
    worst: dict[str, float]
    seeds: int

    @property
    def worst_case(self) -> tuple[float, str]:
        """The least of the mean model's accuracies under attack, and under which."""
        lies = {attack: value for attack, value in self.averaged.items() if attack not in ("none", ABSENT)}
        return min((value, attack) for attack, value in lies.items())


class Cells:
    """Runs cells, unless the file has them; writes down what it ran."""

    def __init__(self, options: Options) -> None:
        self._file = None if options.quick else CELLS
        self._known: dict[str, dict[str, Any]] = {}
        if self._file is not None and self._file.exists():
            lines = self._file.read_text(encoding="utf-8").splitlines()
            self._known = {entry["cell"]: entry["found"] for entry in map(json.loads, lines)}

    def __call__(self, cell: Any, by: Callable[[Any], dict[str, Any]] | None = None) -> dict[str, Any]:
        """What the cell gives, run by ``run`` unless told otherwise."""
        if cell.key not in self._known:
            with threads(1):
                self._known[cell.key] = (by or run)(cell)
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"cell": cell.key, "found": self._known[cell.key]}) + "\n")
        return self._known[cell.key]

    def rule(self, base: Cell, rule: str, seeds: int, attacks: Sequence[str] = ATTACKS) -> Found | None:
        """A rule under attacks; None where it refuses f or the graph."""
        cells = [replace(base, rule=rule, seed=seed) for seed in range(seeds)]
        if not all(map(_fits, cells)):
            return None
        averaged, worst = {}, {}
        for attack in attacks:
            found = [self(replace(cell, attack=attack)) for cell in cells]
            averaged[attack] = float(np.mean([each["averaged"] for each in found]))
            worst[attack] = float(np.mean([each["worst"] for each in found]))
        return Found(averaged, worst, seeds)


def rows(options: Options) -> Iterator[Row]:
    """One row for each graph, split and rule, without those that the rule refuses; what they come to."""
    cells = Cells(options)
    for name, (graph, liars) in GRAPHS.items():
        for words, alpha in list(SPLITS.items())[: FEWER.get(name)]:
            base = Cell("dpsgd", "none", graph, RANKS, liars, alpha, 0)
            if options.quick:
                base = replace(base, ranks=8, liars=1, steps=3, images=1000)
            setting = f"{name}, {words}"
            yield from _setting(setting, base, cells, options)
            if setting in CNN:
                cnn = replace(base, model="cnn", steps=2 * base.steps, lr=0.05)
                yield from _setting(f"{setting}, CNN", cnn, cells, options)
    yield from byzantine_published.rows(cells, options)
    yield from byzantine_server.rows(cells, options)
    yield from cost(options)


def _setting(name: str, base: Cell, cells: Cells, options: Options) -> Iterator[Row]:
    ours = WHOLE.get(name, ("dpsgd", *DEFAULTS[:2]))
    titles = {rule: f"{name}: {rule}" for rule in ours}
    if name == PEERS_SETTING:
        titles |= {rule: f"{name}, {rule}" for rule in byzantine_peers.RULES}
    shown = [rule for rule, title in titles.items() if options.only in title]
    silent = f"{name}: plain gossip, liars send nothing"
    found: dict[str, Found] = {}
    for rule in dict.fromkeys(("dpsgd", *shown)) if shown or options.only in silent else ():
        seeds = 1 if options.quick else options.rounds or SEEDS
        alone = rule == "dpsgd" and not (name in WHOLE and rule in shown)
        attacks = ("none", ABSENT) if alone else ATTACKS if rule != "dpsgd" else (*ATTACKS, ABSENT)
        made = cells.rule(base, rule, seeds, attacks)
        if made is not None:
            found[rule] = made
            if not alone:
                yield _row(titles[rule], base, made, found["dpsgd"])
            if rule == "dpsgd" and options.only in silent:
                left = {"liars": base.liars, "seeds": made.seeds, "worst": round(made.worst[ABSENT], 1)}
                value, whole = made.averaged[ABSENT], made.averaged["none"]
                yield Row("byzantine", silent, left, value, "%", "gossip, no attack", whole)
    if {*ours} <= {*shown}:
        yield from _summary(name, base, found)


def _row(title: str, cell: Cell, found: Found, gossip: Found) -> Row:
    value, _ = found.worst_case
    params = {
        "ranks": cell.ranks,
        "liars": cell.liars,
        "steps": cell.steps,
        "seeds": found.seeds,
        **{
            SHORT.get(attack, attack): f"{averaged:.1f} (worst {found.worst[attack]:.1f})"
            for attack, averaged in found.averaged.items()
        },
    }
    return Row("byzantine", title, params, value, "%", "gossip, no attack", gossip.averaged["none"])


def _summary(name: str, base: Cell, found: dict[str, Found]) -> Iterator[Row]:
    graph = topology.make(base.graph, size=base.ranks, seed=base.seed)
    f, mu = base.f_and_connectivity()
    reference = found["dpsgd"].averaged["none"]
    others = {SAME.get(rule, rule): each.worst_case[0] for rule, each in found.items() if _foreign(rule)}
    for rule in DEFAULTS:
        if rule not in found:
            continue
        worst, attack = found[rule].worst_case
        params = {
            "default": rule == default_rule(graph, f),
            "f": f,
            "connectivity": round(mu, 2),
            "in_condition": mu >= 2 * f,
            "seeds": found[rule].seeds,
            "gossip": round(reference, 2),
            "gossip_without_their_data": round(found["dpsgd"].averaged[ABSENT], 2),
            "without_attack": round(found[rule].averaged["none"], 2),
            "worst_attack": SHORT.get(attack, attack),
        }
        lost = reference - worst
        yield Row(
            "byzantine",
            f"{name}: points lost to the worst attack, {rule}",
            params,
            lost,
            "points",
            "as asked",
            POINTS,
            POINTS / max(lost, _LEAST),
        )
        if others:
            best = max(others, key=lambda other: others[other])
            yield Row(
                "byzantine",
                f"{name}: worst case, {rule}",
                {**params, **{other: round(value, 1) for other, value in others.items()}},
                worst,
                "%",
                f"{best}, best of other libraries",
                others[best],
                worst / max(others[best], _LEAST),
            )


def _foreign(rule: str) -> bool:
    return rule in SAME or rule in byzantine_peers.RULES


def _fits(cell: Cell) -> bool:
    try:
        cell.check()
    except ConfigError:
        return False
    return True
