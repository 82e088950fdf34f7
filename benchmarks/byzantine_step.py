"""One rank of the timing of robust gossip: blocks of training steps, with robust rules and without, in turn.

Run by ``byzantine_cost`` on every rank: ``byzantine_step.py WIDTH ROUNDS STEPS RESULT.json``. Copies of one
model (ten dense layers, see ``gossip_step``) train on the same batches over the same MPI; packets are of int8
and sealed, and every rank hears every other. Gossip follows the step, so that nothing of it is hidden. Rank 0
writes the median step of the slowest rank of each, in seconds, under "step", and under "round" the same of
steps without a gradient.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn

import pydec
from pydec.cli import bench
from pydec.comm.identity import fresh
from pydec.comm.meet import seal
from pydec.comm.mpi import open_mpi
from pydec.peer import Peer
from pydec.train.determinism import reproducible
from pydec.train.together import table

model = bench.load("gossip_step").model
BATCH = 16
CONTENDERS = {
    "plain": "dpsgd:order=atc",
    "cs-plus": "cs-plus:f=1",
    "spectral-filter": "spectral-filter:f=1",
    "gts": "gts:f=1",
}


class Racer:
    """A model and its optimiser."""

    def __init__(self, peer: Peer, width: int, algorithm: str) -> None:
        self.model = model(width)
        self.optimizer = pydec.DecentralizedOptimizer(
            torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9),
            peer,
            topology="complete",
            algorithm=algorithm,
            compressor="int8",
            model=self.model,
            iid=True,
        )

    def step(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Train."""
        loss = nn.functional.mse_loss(self.model(x), y, reduction="sum") / BATCH
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def bare(self) -> None:
        """Gossip alone."""
        self.optimizer.zero_grad()
        self.optimizer.step()


def main(width: int, rounds: int, steps: int, result: Path) -> None:
    """Time all in turn, block after block, and check that ranks came together."""
    transport = seal(open_mpi(deadline_s=600.0), fresh())
    with reproducible(threads=1), Peer(transport, signals=False) as peer:
        made = {name: Racer(peer, width, algorithm) for name, algorithm in CONTENDERS.items()}
        random = torch.Generator().manual_seed(peer.rank)
        x, y = (torch.randn(BATCH, width, generator=random) for _ in range(2))
        seconds: dict[str, dict[str, list[float]]] = {
            kind: {name: [] for name in made} for kind in ("step", "round")
        }
        for current in range(rounds + 1):
            for name in list(made) if current % 2 else reversed(list(made)):
                racer = made[name]
                for kind, action in (("step", lambda r=racer: r.step(x, y)), ("round", racer.bare)):
                    table(peer, [0.0])  # all ranks start together
                    for step in range(steps + 1):
                        start = time.perf_counter()
                        action()
                        if current and step:  # the first round, and the first step, warm up
                            seconds[kind][name].append(time.perf_counter() - start)
        _check(peer, made)
        medians = {}
        for kind, each in seconds.items():
            slowest = table(peer, [statistics.median(values) for values in each.values()]).max(axis=0)
            medians[kind] = dict(zip(each, slowest.tolist(), strict=True))
        if peer.rank == 0:
            parameters = sum(p.numel() for p in made["plain"].model.parameters())
            suite = int(next(iter(transport.sessions.suites.values())))
            result.write_text(json.dumps({**medians, "parameters": parameters, "suite": suite}))


def _check(peer: Peer, made: dict[str, Racer]) -> None:
    """Raise AssertionError if some method's ranks have not come together; looks at the last bias."""
    for name, racer in made.items():
        *_, bias = racer.model.parameters()
        rows = table(peer, bias.detach()[:64].tolist())
        spread = float(abs(rows - rows.mean(axis=0)).max()) / float(abs(rows).max())
        if not spread < 0.5:
            raise AssertionError(f"{name}: biases of the ranks differ by {spread:.2g} of the largest")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
