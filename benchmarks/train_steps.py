"""One rank of the step timing in suite_train: blocks of steps with gossip and without, in turn.

Usage, on each of several ranks: train_steps.py COMPRESSOR ROUNDS STEPS PAUSE FILE. Three copies of the
default stdlib-lm model train on the same batches with the same optimiser; one of them gossips, and one
gossips with packets that move in the background. In every step each waits for PAUSE seconds after the
gradient, which stands for an accelerator that computes while the processor is free. Ranks meet before every
block and the first step of a block is not counted. Rank 0 writes the median step of the slowest rank of each
to FILE, in seconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import pydec
from pydec.train import Task, split, tasks
from pydec.train.batches import Batch, Batches
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.gradients import forward
from pydec.train.loop import local_optimizer
from pydec.train.together import table


def block(
    task: Task, optimizer: torch.optim.Optimizer, data: Iterator[Batch], steps: int, pause_s: float
) -> list[float]:
    """Seconds of each of so many steps, after one that is not counted."""
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        loss = forward(task, task.model, next(data))
        loss.backward()
        time.sleep(pause_s)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main(compressor: str, rounds: int, steps: int, pause_s: float, file: Path) -> None:
    """Time all and write the result."""
    with reproducible(threads=1), pydec.init(seed=1) as peer:
        tasks_ = [tasks.make("stdlib-lm", seed=1) for _ in range(3)]
        config = TrainConfig("stdlib-lm", seed=1).resolve(tasks_[0], peer.size)
        share = split.iid(tasks_[0].samples, peer.size, 1)[peer.rank]
        batches = [iter(Batches(task.train, share, config.batch_size, 1, peer.rank)) for task in tasks_]
        plain = local_optimizer(config, tasks_[0], tasks_[0].model)
        gossip, moving = (
            pydec.DecentralizedOptimizer(
                local_optimizer(config, task, task.model),
                peer,
                topology="one-peer-exponential",
                compressor=compressor,
                algorithm="dpsgd:order=cta",
                model=task.model,
                background=background,
            )
            for task, background in zip(tasks_[1:], (False, True), strict=True)
        )

        times: dict[str, list[float]] = {"plain_s": [], "gossip_s": [], "background_s": []}
        for current in range(rounds + 1):
            kinds = [("plain_s", plain, 0), ("gossip_s", gossip, 1), ("background_s", moving, 2)]
            for name, optimizer, which in kinds if current % 2 else reversed(kinds):
                table(peer, [0.0])  # all ranks start together
                found = block(tasks_[which], optimizer, batches[which], steps, pause_s)
                if isinstance(optimizer, pydec.DecentralizedOptimizer):
                    optimizer.close()  # nothing of it runs beside the next one's block
                if current:  # the first round warms up
                    times[name] += found
        medians = table(peer, [statistics.median(values) for values in times.values()]).max(axis=0)
        if peer.rank == 0:
            file.write_text(json.dumps(dict(zip(times, medians.tolist(), strict=True))))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
