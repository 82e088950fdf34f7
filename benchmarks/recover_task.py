"""The task that ``recover_hosts`` trains: one vector, whose steps leave a trace."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from pydec.train import Defaults, Task


class Vector(nn.Module):
    """A vector of parameters, of which every gradient is 1."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(elements))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean() + self.x.sum()


def vector(elements: int = 256, folder: str = "") -> Task:
    """A task whose every loss appends the moment (CLOCK_MONOTONIC, seconds) to ``folder``/moments-PROCESS.

    Args:
        elements: float32 of the model.
        folder: where the moments go.
    """
    path = Path(folder) / f"moments-{os.getpid()}"

    def loss(output: Tensor, target: Tensor) -> Tensor:
        with path.open("a") as file:
            file.write(f"{time.monotonic()} {target.numel()}\n")
        return output

    data = TensorDataset(torch.ones(4096, 1), torch.ones(4096))
    defaults = Defaults(batch_size=4, lr=1e-6, optimizer="sgd")
    return Task(model=Vector(elements), train=data, loss=loss, validation=data, defaults=defaults)
