"""A small task, and what a rank of a job makes of it."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from pydec.peer import Peer
from pydec.simulate import digest
from pydec.train import Defaults, Task
from pydec.train import display as displays
from pydec.train.loop import Loop
from pydec.train.prepare import prepare
from pydec.train.rundir import RunDir


def blobs(samples: int = 240, hidden: int = 0, norm: bool = False) -> Task:
    """Three clouds in four dimensions, told apart by a linear model, or one with a hidden layer."""
    random = torch.Generator().manual_seed(1)
    y = torch.arange(samples) % 3
    x = torch.randn(samples, 4, generator=random) + 2.0 * torch.eye(3, 4)[y]
    layers = [torch.nn.Linear(4, hidden), torch.nn.ReLU()] if hidden else []
    layers += [torch.nn.BatchNorm1d(hidden or 4)] if norm else []
    model = torch.nn.Sequential(*layers, torch.nn.Linear(hidden or 4, 3))
    data = TensorDataset(x, y)
    return Task(
        model=model,
        train=data,
        loss=cross_entropy,
        validation=data,
        metric=lambda output, target: (output.argmax(1) == target).float().mean(),
        defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd:momentum=0.9,weight_decay=0.001"),
    )


@pytest.fixture
def toy(monkeypatch):
    """Specification of the task, without options."""
    module = types.ModuleType("simulated_toy")
    module.blobs = blobs
    monkeypatch.setitem(sys.modules, "simulated_toy", module)
    return "simulated_toy:blobs"


def trained(transport, config, directory):
    """The bits of a rank's model after a run of ``pydec train``'s own loop."""
    with Peer(transport, signals=False, seed=config.seed) as peer:
        setup = prepare(peer, config)
        with RunDir(directory).metrics(peer.rank) as metrics:
            shown = displays.make("", 0, quiet=True)
            Loop(setup.config, setup.task, peer, setup.optimizer, setup.batches, metrics, shown).run()
        return [digest(arena.vector) for arena in setup.optimizer._all_arenas]
