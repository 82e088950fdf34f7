"""One rank of a race: trains one contender for a number of steps and notes score, time and bytes as it goes.

Every rank of an MPI job calls ``main(CONFIG, RESULT)``; CONFIG holds the fields of ``Race``. The clock and
the byte counters run while steps are taken and stand still while the averaged model is evaluated. Rank 0
writes RESULT.
"""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pydec
from pydec.train import optimizers as local_optimizers
from pydec.train import split, tasks
from pydec.train.batches import Batches
from pydec.train.determinism import reproducible
from pydec.train.evaluate import evaluate

from . import racers
from .config import Race


def tx_bytes() -> int:
    """Bytes that left this host's link, or 0 where there is none."""
    try:
        return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())
    except OSError:
        return 0


def run(race: Race) -> dict[str, Any]:
    """Train and return the curve: a list of points with step, time_s, bytes_sent and score."""
    with reproducible(threads=int(os.environ.get("OMP_NUM_THREADS", "1"))):
        peer = None
        if race.method == "pydec":
            peer = pydec.init(seed=race.seed, deadline_s=300.0)
            rank, size = peer.rank, peer.size
        else:
            rank, size = racers.start_gloo()
        task = tasks.make(race.task, seed=race.seed)
        defaults = task.defaults
        optimizer, lr = race.optimizer or defaults.optimizer, race.lr or defaults.lr
        share = split.iid(task.samples, size, race.seed)[rank]
        batches = iter(Batches(task.train, share, race.batch_size or defaults.batch_size, race.seed, rank))

        def make(module: nn.Module) -> torch.optim.Optimizer:
            return local_optimizers.make(optimizer, list(module.parameters()), lr)

        if peer is not None:
            racer: racers.Racer = racers.Ours(task.model, make, peer, race.options)
        else:
            racer = racers.PEERS[race.method](task.model, make, **race.options)
        found = _train(race, task, racer, batches, rank, lr)
        racer.close()
        if peer is not None:
            peer.close()
        return {"parameters": sum(p.numel() for p in task.model.parameters()), "ranks": size, **found}


def _train(race: Race, task: Any, racer: racers.Racer, batches: Any, rank: int, lr: float) -> dict[str, Any]:
    curve: list[dict[str, float]] = []
    clock_s, sent, losses = 0.0, 0, []
    racer.barrier()
    began, before = time.perf_counter(), tx_bytes()
    for step in range(1, race.steps + 1):
        racer.set_lr(0.5 * lr * (1 + math.cos(math.pi * (step - 1) / race.steps)))
        computing = time.perf_counter()
        inputs, target = next(batches)
        loss = task.loss(racer.model(*inputs), target)
        loss.backward()
        if rank == race.slow_rank:
            time.sleep((race.slowdown - 1.0) * (time.perf_counter() - computing))
        racer.step()
        losses.append(float(loss.detach()))
        if step % race.evaluate_every and step != race.steps:
            continue
        racer.barrier()  # a point on the curve is where the slowest rank is
        clock_s += time.perf_counter() - began
        sent += tx_bytes() - before
        with racer.averaged() as model:
            score = evaluate(task, model) if rank == 0 else {}
        point = {
            "step": step,
            "time_s": clock_s,
            "bytes_sent": sent,
            "train_loss": sum(losses) / len(losses),
            **score,
        }
        curve.append(point)
        losses.clear()
        if _together(racer, rank, _finished(race, point)):
            break
        began, before = time.perf_counter(), tx_bytes()
    return {"curve": curve}


def _finished(race: Race, point: dict[str, float]) -> bool:
    if point["time_s"] > race.limit_s:
        return True
    if race.target is None:
        return False
    return point["accuracy"] >= race.target if "accuracy" in point else point["loss"] <= race.target


def _together(racer: racers.Racer, rank: int, finished: bool) -> bool:
    """Rank 0's word, on all ranks; waits for its evaluation too."""
    if isinstance(racer, racers.Ours):
        from pydec.train.together import table

        return bool(table(racer._peer, [float(finished)])[0, 0])
    word = torch.tensor([float(finished)])
    torch.distributed.broadcast(word, 0)
    return bool(word.item())


def main(config: str, result: str) -> None:
    """Run the race of the file ``config`` on this rank; rank 0 writes the curve to ``result``."""
    found = run(Race(**json.loads(Path(config).read_text())))
    if int(os.environ.get("OMPI_COMM_WORLD_RANK", "0")) == 0:
        Path(result).write_text(json.dumps(found))
