"""How soon the others go on when a rank dies or more are asked for; what that costs: checkpoints."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import recover_hosts, recover_kills, recover_peers, recover_scale
from .harness import Options, Row
from .jobs import run_ranks

RANKS = 2
EVERY = 50
"""Steps between checkpoints: some seconds, which is more often than a real run would."""


def rows(options: Options) -> Iterator[Row]:
    """What checkpoints cost, then what deaths do, then what it takes to grow; then the peers, and hosts."""
    parts = {
        "checkpoint": _checkpoints,
        "kill": recover_kills.rows,
        "more ranks": recover_scale.rows,
        "host": recover_hosts.rows,
    }
    ours: dict[str, float] = {}
    for name, part in parts.items():
        if options.only in name:
            for row in part(options):
                ours[row.name] = row.value
                yield row
    if options.only in "kill":
        yield from recover_peers.rows(options, ours)


def _checkpoints(options: Options) -> Iterator[Row]:
    """A step with and without checkpoints, the stall of a step that takes one, bytes written a second."""
    rounds = options.rounds or (1 if options.quick else 10)
    every = 4 if options.quick else EVERY
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "steps.json"
        program = Path(__file__).with_name("checkpoint_steps.py")
        run_ranks(RANKS, [sys.executable, str(program), str(rounds), str(every), str(result)])
        found = json.loads(result.read_text())
    params = {"task": "stdlib-lm", "ranks": RANKS, "threads": 1, "every": every, "rounds": rounds}
    yield Row(
        "recover",
        "step with checkpoints",
        {**params, "overhead": found["saving_s"] / found["plain_s"] - 1.0},
        1e3 * found["saving_s"],
        "ms",
        "the same step without",
        1e3 * found["plain_s"],
        found["plain_s"] / found["saving_s"],
    )
    yield Row(
        "recover",
        "stall of a checkpoint, per step",
        {**params, "fraction_of_step": found["stall_s"] / every / found["plain_s"]},
        1e3 * found["stall_s"] / every,
        "ms",
        "2 % of a step",
        20.0 * found["plain_s"],
        0.02 * found["plain_s"] * every / found["stall_s"],
    )
    yield Row(
        "recover",
        "checkpoint written by each rank, hashed and synced",
        {**params, "mb": found["bytes"] / 1e6},
        found["bytes"] / found["write_s"] / 1e6,
        "MB/s",
        None,
        None,
        None,
    )
