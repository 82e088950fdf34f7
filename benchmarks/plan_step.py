"""One rank of the comparison of plans with runs: blocks of steps of one vector, each method in turn.

Run by ``plan_checks`` on every host: ``plan_step.py METHODS ELEMENTS PAUSE ROUNDS STEPS RESULT.json``.
METHODS is a JSON object of names and options of ``DecentralizedOptimizer``; null trains alone. In every step
a rank waits for PAUSE seconds, which stand for an accelerator that computes while the processor is free, and
then takes a step of SGD. Rank 0 writes, by method, the median over the rounds of the slowest rank's seconds a
step, and the bytes a step that left a host's link, the mean over hosts, headers of all layers included.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

import pydec
from pydec.cli import bench
from pydec.train.determinism import reproducible
from pydec.train.together import table

LEAD = 4  # steps of a block that are not counted: a multiple of all local steps, as is STEPS

tx_bytes = bench.load("netlab.race").tx_bytes


def main(
    methods: dict[str, Any], elements: int, pause_s: float, rounds: int, steps: int, result: Path
) -> None:
    """Time all and write the result."""
    with reproducible(threads=1), pydec.init(seed=1, deadline_s=300.0) as peer:
        made: dict[str, torch.optim.Optimizer] = {}
        for name, options in methods.items():
            drawn = torch.Generator().manual_seed(peer.rank)
            vector = torch.nn.Parameter(torch.randn(elements, generator=drawn))
            vector.grad = torch.zeros_like(vector)
            made[name] = torch.optim.SGD([vector], lr=1e-3)
            if options is not None:
                made[name] = pydec.DecentralizedOptimizer(made[name], peer, iid=True, init="keep", **options)
        seconds: dict[str, list[float]] = {name: [] for name in made}
        sent: dict[str, list[float]] = {name: [] for name in made}
        for current in range(rounds + 1):
            for name, optimizer in made.items():
                table(peer, [0.0])  # all ranks start together
                took_s, n_bytes = block(optimizer, pause_s, steps)
                if isinstance(optimizer, pydec.DecentralizedOptimizer):
                    optimizer.close()  # nothing of it runs beside the next one's block
                if current:  # the first round warms up
                    seconds[name].append(took_s / steps)
                    sent[name].append(n_bytes / steps)
        times = table(peer, [statistics.median(values) for values in seconds.values()]).max(axis=0)
        traffic = table(peer, [statistics.median(values) for values in sent.values()]).mean(axis=0)
        if peer.rank == 0:
            found = {
                name: {"step_s": float(times[number]), "bytes": float(traffic[number])}
                for number, name in enumerate(made)
            }
            result.write_text(json.dumps(found))


def block(optimizer: torch.optim.Optimizer, pause_s: float, steps: int) -> tuple[float, int]:
    """Seconds and bytes of so many steps, after some that are not counted."""
    for _ in range(LEAD):
        time.sleep(pause_s)
        optimizer.step()
    began_s, before = time.perf_counter(), tx_bytes()
    for _ in range(steps):
        time.sleep(pause_s)
        optimizer.step()
    return time.perf_counter() - began_s, tx_bytes() - before


if __name__ == "__main__":
    words = sys.argv[1:]
    main(json.loads(words[0]), int(words[1]), float(words[2]), int(words[3]), int(words[4]), Path(words[5]))
