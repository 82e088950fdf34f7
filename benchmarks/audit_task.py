"""Softmax regression on points that it can tell apart: a task whose steps cost next to nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from pydec.train import Defaults, Task

_CLASSES, _SIZE, _SAMPLES = 10, 64, 4000


def clouds() -> Task:
    """Ten clouds of points in 64 dimensions, 650 parameters."""
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((_CLASSES, _SIZE))
    labels = draw.integers(_CLASSES, size=_SAMPLES)
    points = torch.from_numpy(draw.standard_normal((_SAMPLES, _SIZE)) + centres[labels]).float()
    y = torch.from_numpy(labels)
    return Task(
        model=torch.nn.Linear(_SIZE, _CLASSES),
        train=TensorDataset(points[:3500], y[:3500]),
        loss=cross_entropy,
        validation=TensorDataset(points[3500:], y[3500:]),
        metric=lambda a, b: (a.argmax(1) == b).float().mean(),
        defaults=Defaults(batch_size=16, lr=0.05, optimizer="sgd"),
    )
