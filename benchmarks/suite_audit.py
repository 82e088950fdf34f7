"""How soon a lying rank loses its stake, attack by attack, and what a step costs more where all must answer.

Rounds to eviction are those of whole runs with their ledgers, of six ranks on a complete graph, one of which
lies, in one process: they depend on seeds, not on the machine. Those whom audits must find are given as many
rounds as find 99 %; who is not found counts as that many. All attacks at a budget of 10 %, several at the
default of 1 %. The costs are those of steps under MPI, of Fashion-MNIST's CNN, the slowest rank's median.
``--only TEXT`` takes rows whose name holds TEXT.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydec.aggregate.attacks import attacks
from pydec.comm.local import LocalCluster
from pydec.errors import HeterogeneityWarning, RobustnessWarning
from pydec.peer import Peer
from pydec.train import job
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible

from .harness import Options, Row
from .jobs import run_ranks

RANKS, LIAR = 6, 3
REPORTS = 10  # steps between two, where ranks are audited and left out
MISSED = 0.01
SEVERAL = ("alie", "equivocation", "label-flip")
"""At the budget whose runs are long: found by audits, by claims, and trained on wrong data."""
WAYS = {
    "plain": ("--accountable", "off"),
    "signed": ("--accountable", "on"),
    "signed and audited": ("--accountable", "on", "--audit"),
}


def rows(options: Options) -> Iterator[Row]:
    """One row for each attack and budget, then the costs."""
    budgets = {0.1: SEVERAL[:2]} if options.quick else {0.01: SEVERAL, 0.1: list(attacks)}
    for budget, chosen in budgets.items():
        for attack in chosen:
            name = f"rounds to eviction, {attack}, budget {100 * budget:g} %"
            if options.only in name:
                yield _eviction(name, attack, budget, 1 if options.quick else options.rounds or 5)
    for way in WAYS:
        name = f"step of 4 ranks, {way}"
        if way != "plain" and options.only in name:
            yield _cost(name, way, options)


def chance(budget: float) -> float:
    """That a wrong step is found, where all others are honest."""
    return min(budget, 1.0 / REPORTS)


def _eviction(name: str, attack: str, budget: float, seeds: int) -> Row:
    most = math.ceil(math.log(MISSED) / math.log(1.0 - chance(budget)) / REPORTS) * REPORTS
    found = [_run(attack, budget, most, seed) for seed in range(seeds)]
    rounds = [float(most if summary["round"] is None else summary["round"]) for summary in found]
    params = {
        "ranks": RANKS,
        "budget": budget,
        "report_every": REPORTS,
        "seeds": seeds,
        "rounds": rounds,
        "found_by": sorted({summary["by"] for summary in found}),
        "missed": sum(summary["round"] is None for summary in found),
        "innocent": sum(summary["innocent"] for summary in found),
    }
    mean = statistics.mean(rounds)
    expected = REPORTS if params["found_by"] == ["claims"] else 1.0 / chance(budget)
    return Row("audit", name, params, mean, "rounds", "expected", expected, expected / mean)


def _run(attack: str, budget: float, steps: int, seed: int) -> dict[str, Any]:
    """One run, up to ``steps``: when the liar was out, how it was found, and how many others were."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            f"{__name__.rpartition('.')[0]}.audit_task:clouds",
            steps=steps,
            eval_every=steps,
            log_every=REPORTS,
            topology="complete",
            compressor="none",
            aggregate="cs-plus:f=1",
            byzantine=f"{LIAR},",
            attack="stale:delay=20" if attack == "stale" else attack,
            audit=budget,
            ledger=f"{folder}/ledger",
            keep_last=0,
            seed=seed,
            threads=1,
        )

        def program(transport: Any) -> None:
            with Peer(transport, signals=False) as peer:
                job.run(peer, config, f"{folder}/run", quiet=True)

        with reproducible(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", HeterogeneityWarning)
            warnings.simplefilter("ignore", RobustnessWarning)
            LocalCluster(RANKS, seed, deadline_s=1e9).run(program)
        ledger = json.loads(Path(folder, "run/summary.json").read_text())["ledger"]
    evicted = {gone["rank"]: gone["round"] for gone in ledger["evicted"]}
    claims = [found["rank"] for found in ledger["accountable"]["equivocated"]]
    return {
        "round": evicted.get(LIAR),
        "by": "claims" if LIAR in claims else "audit" if LIAR in evicted else "nothing",
        "innocent": len(evicted.keys() - {LIAR}),
    }


def _cost(name: str, way: str, options: Options) -> Row:
    steps, turns = (12, 1) if options.quick else (200, options.rounds or 3)
    ours, plain = [], []
    for _ in range(turns):  # in turn: a busy machine slows both
        plain.append(_step_s("plain", steps))
        ours.append(_step_s(way, steps))
    value, peer = 1e3 * statistics.median(ours), 1e3 * statistics.median(plain)
    params = {"model": "fashion-mnist CNN, 421,642 parameters", "batch": 32, "ranks": 4, "steps": steps}
    return Row("audit", name, params, value, "ms", "plain", peer, peer / value)


def _step_s(way: str, steps: int) -> float:
    """Median seconds of a step, of the slowest of 4 ranks."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["train", "fashion-mnist:samples=8000", "--steps", str(steps), "--eval-every", str(steps)]
        words += ["--batch-size", "32", "--topology", "complete", "--aggregate", "cs-plus:f=1", "--quiet"]
        words += ["--log-every", str(REPORTS), "--keep-last", "0", "--threads", "1", "--deadline", "300"]
        words += ["--ledger", os.path.join(folder, "ledger"), "--run-dir", os.path.join(folder, "run")]
        run_ranks(4, [*words, *WAYS[way]])
        medians = []
        for rank in range(4):
            lines = Path(folder, f"run/metrics/rank-{rank}.jsonl").read_text().splitlines()
            steps_s = [row["step_s"] for row in map(json.loads, lines) if row["kind"] == "step"]
            medians.append(statistics.median(steps_s))
        return max(medians)
