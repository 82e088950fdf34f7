"""A small task, and what a rank of a job makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from pydec.peer import Peer
from pydec.simulate.run import digest
from pydec.train import Defaults, Task, display
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.loop import Loop
from pydec.train.prepare import prepare
from pydec.train.rundir import RunDir

BLOBS = "tests.simulate.toy:blobs"


def blobs(samples: int = 240, hidden: int = 0, norm: bool = False, bad: bool = False) -> Task:
    """Three clouds in four dimensions, told apart by a linear model, or one with a hidden layer."""
    random = torch.Generator().manual_seed(1)
    y = torch.arange(samples) % 3
    x = torch.randn(samples, 4, generator=random) + 2.0 * torch.eye(3, 4)[y]
    if bad:
        x[:] = float("nan")
    layers: list[torch.nn.Module] = [torch.nn.Linear(4, hidden), torch.nn.ReLU()] if hidden else []
    layers += [torch.nn.BatchNorm1d(hidden or 4)] if norm else []
    data = TensorDataset(x, y)
    return Task(
        model=torch.nn.Sequential(*layers, torch.nn.Linear(hidden or 4, 3)),
        train=data,
        loss=cross_entropy,
        validation=data,
        metric=accuracy,
        defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd:momentum=0.9,weight_decay=0.001"),
    )


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float().mean()


def trained(transport, config: TrainConfig, folder: Path) -> str:
    """The bits of a rank's model after ``pydec train``'s own loop."""
    with Peer(transport, signals=False, seed=config.seed) as peer:
        setup = prepare(peer, config)
        (folder / "metrics").mkdir(parents=True, exist_ok=True)
        with RunDir(folder).metrics(peer.rank) as metrics:
            shown = display.make("", 0, quiet=True)
            Loop(setup.config, setup.task, peer, setup.optimizer, setup.batches, metrics, shown).run()
        (arena,) = setup.optimizer._arenas
        return digest(arena.vector)


def main(folder: Path, configs: dict[str, dict]) -> None:
    """Under mpirun: train every configuration, and leave each rank's bits in a file."""
    from pydec.comm.mpi import open_mpi

    os.chdir(folder)
    with reproducible(threads=1):
        for name, options in configs.items():
            transport = open_mpi(deadline_s=300.0)  # closed with the peer
            bits = trained(transport, TrainConfig(BLOBS, **options), folder / name)
            (folder / f"{name}-{transport.rank}").write_text(bits)
