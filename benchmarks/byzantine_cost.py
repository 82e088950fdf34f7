"""What robust gossip costs in a training step, under MPI, with compression and encryption on."""

from __future__ import annotations

from collections.abc import Iterator

from pydec.crypto.suites import Suite

from .harness import Options, Row
from .jobs import measured

RANKS = 5
"""Each hears the 4 others."""
WIDTH = 500
"""Of ten dense layers: 2.5 M parameters."""


def cost(options: Options) -> Iterator[Row]:
    """A step of each rule beside one of plain gossip, and the same without a gradient."""
    name = "of 4 neighbours, int8, sealed"
    if options.only and options.only not in f"step {name}" and options.only not in f"round {name}":
        return
    width, rounds, steps = (50, 1, 1) if options.quick else (WIDTH, options.rounds or 10, 4)
    found = measured(RANKS, "byzantine_step.py", width, rounds, steps)
    params = {
        "ranks": RANKS,
        "parameters": found["parameters"],
        "rounds": rounds,
        "steps": steps,
        "suite": Suite(found["suite"]).words,
    }
    for kind in ("step", "round"):
        plain = found[kind].pop("plain")
        for rule, seconds in found[kind].items():
            facts = {**params, "fraction": round(seconds / plain, 3)}
            title = f"{kind} {name}: {rule}"
            yield Row(
                "byzantine", title, facts, 1e3 * seconds, "ms", "plain gossip", 1e3 * plain, plain / seconds
            )
