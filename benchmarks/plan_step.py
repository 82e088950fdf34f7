"""One rank of the comparison of plans with runs: blocks of steps of one vector, each method in turn.

Run by ``plan_checks`` on every host: ``plan_step.py METHODS ELEMENTS PAUSE ROUNDS GROUPS RESULT.json``.
METHODS is a JSON object of names and options of ``DecentralizedOptimizer``; null trains alone. In every step
a rank waits for PAUSE seconds, which stand for an accelerator that computes while the processor is free, and
then takes a step of SGD. Rank 0 writes, by method, the seconds a step of the slowest rank, the median over
ROUNDS x GROUPS times four steps, and the bytes a step that left a link, the mean over hosts, headers of
all layers included.
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

GROUP = 4  # steps that are timed together: a multiple of all local steps

tx_bytes = bench.load("netlab.race").tx_bytes


def main(
    methods: dict[str, Any], elements: int, pause_s: float, rounds: int, groups: int, result: Path
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
        for _ in range(rounds):
            for name, optimizer in made.items():
                table(peer, [0.0])  # all ranks start together
                took_s, n_bytes = block(optimizer, pause_s, groups)
                if isinstance(optimizer, pydec.DecentralizedOptimizer):
                    optimizer.close()  # nothing of it runs beside the next one's block
                seconds[name] += took_s
                sent[name].append(n_bytes / (GROUP * groups))
        times = table(peer, [statistics.median(values) for values in seconds.values()]).max(axis=0)
        traffic = table(peer, [statistics.median(values) for values in sent.values()]).mean(axis=0)
        if peer.rank == 0:
            found = {
                name: {"step_s": float(times[number]), "bytes": float(traffic[number])}
                for number, name in enumerate(made)
            }
            result.write_text(json.dumps(found))


def block(optimizer: torch.optim.Optimizer, pause_s: float, groups: int) -> tuple[list[float], int]:
    """Seconds a step of each of so many groups, and bytes of all, after a group that is not counted."""
    seconds, before = [], 0
    for number in range(groups + 1):
        if number == 1:
            before = tx_bytes()
        began_s = time.perf_counter()
        for _ in range(GROUP):
            time.sleep(pause_s)
            optimizer.step()
        seconds.append((time.perf_counter() - began_s) / GROUP)
    return seconds[1:], tx_bytes() - before


if __name__ == "__main__":
    words = sys.argv[1:]
    main(json.loads(words[0]), int(words[1]), float(words[2]), int(words[3]), int(words[4]), Path(words[5]))
