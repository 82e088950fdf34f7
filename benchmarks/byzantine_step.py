"""One rank of the timing of robust gossip: blocks of training steps, with robust rules and without, in turn.

Run by ``byzantine_cost`` on every rank: ``byzantine_step.py ROUNDS STEPS RESULT.json``. Copies of the default
stdlib-lm model train on the same batches over the same MPI; packets are of int8 and sealed, and every rank
hears every other. Gossip follows the step, so that nothing of it is hidden. Rank 0 writes the median step of
the slowest rank of each, in seconds, under "step", and the same of steps without a gradient under "round".
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
from pydec.comm.identity import fresh
from pydec.comm.meet import seal
from pydec.comm.mpi import open_mpi
from pydec.peer import Peer
from pydec.train import split, tasks
from pydec.train.batches import Batches
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.loop import local_optimizer
from pydec.train.together import table

block = bench.load("train_steps").block
CONTENDERS = {"plain": "dpsgd:order=atc", "cs-plus": "cs-plus:f=1", "gts": "gts:f=1"}


def main(rounds: int, steps: int, result: Path) -> None:
    """Time all in turn, block after block, and check that ranks came together."""
    transport = seal(open_mpi(deadline_s=300.0), fresh())
    with reproducible(threads=1), Peer(transport, signals=False) as peer:
        made = {name: _made(peer, algorithm) for name, algorithm in CONTENDERS.items()}
        seconds: dict[str, dict[str, list[float]]] = {
            kind: {name: [] for name in made} for kind in ("step", "round")
        }
        for current in range(rounds + 1):
            for name in list(made) if current % 2 else reversed(list(made)):
                table(peer, [0.0])  # all ranks start together
                found = block(*made[name], steps, 0.0)
                table(peer, [0.0])
                bare = _rounds(made[name][1], steps)
                if current:  # the first round warms up
                    seconds["step"][name] += found
                    seconds["round"][name] += bare
        _check(peer, made)
        medians = {}
        for kind, each in seconds.items():
            slowest = table(peer, [statistics.median(values) for values in each.values()]).max(axis=0)
            medians[kind] = dict(zip(each, slowest.tolist(), strict=True))
        if peer.rank == 0:
            parameters = sum(p.numel() for p in made["plain"][0].model.parameters())
            suite = int(next(iter(transport.sessions.suites.values())))
            result.write_text(json.dumps({**medians, "parameters": parameters, "suite": suite}))


def _made(peer: Peer, algorithm: str) -> tuple[Any, pydec.DecentralizedOptimizer, Any]:
    task = tasks.make("stdlib-lm", seed=1)
    config = TrainConfig("stdlib-lm", seed=1, optimizer="sgd:momentum=0.9", lr=0.01)
    config = config.resolve(task, peer.size)
    share = split.iid(task.samples, peer.size, 1)[peer.rank]
    batches = iter(Batches(task.train, share, config.batch_size, 1, peer.rank))
    optimizer = pydec.DecentralizedOptimizer(
        local_optimizer(config, task, task.model),
        peer,
        topology="complete",
        algorithm=algorithm,
        compressor="int8",
        model=task.model,
        iid=True,
    )
    return task, optimizer, batches


def _rounds(optimizer: pydec.DecentralizedOptimizer, steps: int) -> list[float]:
    """Seconds of steps without a gradient: of gossip alone."""
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def _check(peer: Peer, made: dict[str, Any]) -> None:
    """Raise AssertionError if some method's ranks are farther apart than a hundredth of their length."""
    for name, (task, _, _) in made.items():
        vector = torch.nn.utils.parameters_to_vector(task.model.parameters())[:4096]
        rows = table(peer, vector.tolist())
        spread = float(abs(rows - rows.mean(axis=0)).max()) / float(abs(rows).max())
        if not spread < 0.1:
            raise AssertionError(f"{name}: parameters of the ranks differ by {spread:.2g} of the largest")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
