"""How a rank's gradients come about in a step of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pydec.errors import ConfigError
from pydec.trace import traced
from pydec.train.batches import Batch
from pydec.train.task import Task


class Gradients(Protocol):
    """What a loop asks before it lets the optimiser step."""

    def backward(self, batch: Batch) -> Tensor:
        """Leave the batch's gradient in the parameters' ``grad``; the loss that may be shown, or NaN."""

    def figures(self) -> Mapping[str, float] | None:
        """What reports show in place of the training loss; None where they show the loss."""


class PlainGradients:
    """The gradient of a batch's mean loss.

    Args:
        task: model and loss.
        clip_norm: largest norm of the gradient; 0 does not clip.
    """

    def __init__(self, task: Task, clip_norm: float) -> None:
        self._task = task
        self._clip_norm = clip_norm
        self._parameters = [p for p in task.model.parameters() if p.requires_grad]

    @traced("compute")
    def backward(self, batch: Batch) -> Tensor:
        """Differentiate the loss of a batch.

        Raises:
            ConfigError: the loss is no scalar with a gradient.
        """
        loss = forward(self._task, self._task.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's annotation is missing
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        return loss

    def figures(self) -> None:
        """The loss says it all."""


def forward(task: Task, model: nn.Module, batch: Batch) -> Tensor:
    """Loss of one batch.

    Raises:
        ConfigError: the loss is no scalar tensor that depends on a trainable parameter.
    """
    inputs, target = batch
    loss = scalar(task.loss(model(*inputs), target))
    if not loss.requires_grad:
        raise ConfigError(
            "the loss depends on no trainable parameter; is the model frozen, or detached in Task.loss?"
        )
    return loss


def loss_of(task: Task, batch: Batch) -> float:
    """Loss of one batch without a gradient, in evaluation mode."""
    inputs, target = batch
    training = task.model.training
    task.model.eval()
    try:
        with torch.no_grad():
            return float(scalar(task.loss(task.model(*inputs), target)))
    finally:
        task.model.train(training)


def scalar(loss: Any) -> Tensor:
    """``loss``, if it is one number.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigError(f"Task.loss must return one number as a tensor, the batch's mean loss; got {shape}")
    return loss
