"""The training job: tasks, the split of their data over the ranks, the loop and its run directory.

A task of your own is a function that returns a ``Task``; ``pydec train module:function`` runs it::

    # mine.py
    import torch
    from torch.nn.functional import mse_loss
    from torch.utils.data import TensorDataset
    from pydec.train import Task

    def line(slope: float = 2.0) -> Task:
        x = torch.linspace(-1, 1, 1000).unsqueeze(1)
        data = TensorDataset(x, slope * x + 1)
        return Task(model=torch.nn.Linear(1, 1), train=data, loss=mse_loss, validation=data)

    # mpirun -n 4 pydec train mine:line:slope=3 --epochs 5 --lr 0.1
"""

from __future__ import annotations

from pydec.train.task import Defaults, Task

__all__ = ["Defaults", "Task"]
