"""One rank of the benchmark of sealed training: blocks of steps, sealed and plain in turn.

Run by ``suite_secure`` on every rank: ``secure_step.py ROUNDS STEPS PAUSE RESULT.json``. Two copies of the
default stdlib-lm model train on the same batches over the same MPI, with packets that move in the background;
those of one are sealed. PAUSE is what ``train_steps`` says. Rank 0 writes the median step of the slowest rank
of each, in seconds, and the number of the cipher suite.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

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


def main(rounds: int, steps: int, pause_s: float, result: Path) -> None:
    """Time both in turn, block after block, and check that they learned the same."""
    plain = open_mpi(deadline_s=120.0)
    sealed = seal(plain, fresh())
    with reproducible(threads=1), Peer(plain, signals=False) as open_, Peer(sealed, signals=False) as closed:
        made = {}
        for name, peer in (("plain", open_), ("sealed", closed)):
            task = tasks.make("stdlib-lm", seed=1)
            config = TrainConfig("stdlib-lm", seed=1).resolve(task, peer.size)
            share = split.iid(task.samples, peer.size, 1)[peer.rank]
            batches = iter(Batches(task.train, share, config.batch_size, 1, peer.rank))
            optimizer = pydec.DecentralizedOptimizer(
                local_optimizer(config, task, task.model),
                peer,
                topology="one-peer-exponential",
                algorithm="dpsgd:order=cta",
                model=task.model,
                background=True,
            )
            made[name] = task, optimizer, batches
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for current in range(rounds + 1):
            for name in list(made) if current % 2 else reversed(list(made)):
                table(open_, [0.0])  # all ranks start together
                found = block(*made[name], steps, pause_s)
                made[name][1].close()  # nothing of it runs beside the next one's block
                if current:  # the first round warms up
                    seconds[name] += found
        models = [
            torch.nn.utils.parameters_to_vector(task.model.parameters()) for task, _, _ in made.values()
        ]
        if not torch.equal(*models):
            raise AssertionError("sealed training gave other bits than plain training")
        medians = table(open_, [statistics.median(values) for values in seconds.values()]).max(axis=0)
        if plain.rank == 0:
            suite = int(next(iter(sealed.sessions.suites.values())))
            result.write_text(
                json.dumps({**dict(zip(seconds, medians.tolist(), strict=True)), "suite": suite})
            )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
