"""Loss and metric of a model on data it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Sized
from typing import cast

import numpy as np
import torch
from torch import nn

from pydec.comm.living import living
from pydec.train.batches import fetch
from pydec.train.task import Task
from pydec.train.together import Member, table

BATCH = 256
_DIVERGED = 1e300  # stands for NaN and infinity while tables travel

Score = dict[str, float]
"""``loss``, the task's metric by its name, and ``bits_per_byte`` where the loss is one of bytes."""


def sums(task: Task, model: nn.Module, part: slice, batch_size: int = BATCH) -> tuple[float, float, int]:
    """Sums over some validation samples, in evaluation mode without gradients.

    Args:
        task: whose validation set, loss and metric are used.
        model: what to evaluate; its mode is restored.
        part: which samples.
        batch_size: samples in a forward pass.

    Returns:
        (sum of losses, sum of metrics, number of samples).
    """
    if task.validation is None:
        return 0.0, 0.0, 0
    indices = np.arange(len(cast(Sized, task.validation)), dtype=np.int64)[part]
    loss = metric = 0.0
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(indices), batch_size):
                piece = indices[start : start + batch_size]
                inputs, target = fetch(task.validation, piece)
                output = model(*inputs)
                loss += float(task.loss(output, target)) * len(piece)
                if task.metric is not None:
                    metric += float(task.metric(output, target)) * len(piece)
    finally:
        model.train(training)
    return loss, metric, len(indices)


def score(task: Task, loss: float, metric: float, count: float) -> Score:
    """Means of such sums, by name; empty without validation data."""
    if not count:
        return {}
    result = {"loss": loss / count if loss < _DIVERGED else math.inf}
    if task.metric is not None:
        result[task.metric_name] = metric / count
    if task.loss_is_nats_per_byte:
        result["bits_per_byte"] = result["loss"] / math.log(2.0)
    return result


def evaluate(task: Task, model: nn.Module) -> Score:
    """Score of a model on the whole validation set, computed by this rank alone."""
    return score(task, *sums(task, model, slice(None)))


def evaluate_together(task: Task, model: nn.Module, peer: Member) -> Score:
    """Score of a model that all living ranks hold alike; each looks at its part of the validation set.

    The part of a rank that dies meanwhile is left out of the score.
    """
    members = living(peer.transport).members
    part = slice(members.index(peer.rank), None, len(members))
    with peer.busy():
        mine = sums(task, model, part)
    rows = table(peer, _finite(mine))
    return score(task, *rows.sum(axis=0).tolist())


def worst(task: Task, model: nn.Module, peer: Member, *, counts: bool = True) -> dict[str, float | int]:
    """Rank whose own model has the highest loss, with its score; all ranks call it together.

    Args:
        task: whose validation data are used.
        model: of this rank.
        peer: this rank.
        counts: whether this rank may be the worst; liars may not.
    """
    with peer.busy():
        mine = sums(task, model, slice(None)) if counts else (0.0, 0.0, 0)
    rows = table(peer, _finite(mine))
    if not rows[:, 2].any():
        return {}
    losses = np.divide(rows[:, 0], rows[:, 2], out=np.full(len(rows), -np.inf), where=rows[:, 2] > 0)
    rank = int(np.argmax(losses))
    return {"rank": rank, **score(task, *rows[rank].tolist())}


def _finite(row: tuple[float, float, int]) -> tuple[float, ...]:
    """A diverged model's loss as the largest number, which arithmetic over ranks survives."""
    return tuple(value if math.isfinite(value) else _DIVERGED for value in row)
