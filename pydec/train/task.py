"""What a task is: a model, data and a loss; and how a task is found by name or as ``module:function``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from pydec.errors import ConfigError
from pydec.registry import Registry, imported

StoredData = Callable[..., Any]
OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class Defaults:
    """What ``pydec train`` uses where the command line says nothing.

    Args:
        batch_size: samples per rank and step.
        lr: peak learning rate.
        optimizer: specification string, see ``pydec.train.optimizers``.
        schedule: "constant" or "cosine".
        steps: length of the run in steps; 0 leaves it to ``epochs``.
        epochs: length of the run in passes over a rank's share of the data.
    """

    batch_size: int = 32
    lr: float = 0.05
    optimizer: str = "sgd:momentum=0.9"
    schedule: str = "constant"
    steps: int = 0
    epochs: float = 1.0


@dataclass
class Task:
    """One training problem, before it is cut into shares for the ranks.

    A sample is a tuple; its last entry is the target, the others are the model's arguments. A batch
    stacks samples as ``torch.utils.data.default_collate`` does.

    Args:
        model: the module to train, with the same initial values on every rank.
        train: map-style dataset with a length. A method ``batch(indices)`` that returns a whole
            batch for an int64 tensor of indices is used if there is one; so are TensorDatasets.
        loss: ``loss(output, target)`` gives the batch's mean loss, a scalar tensor.
        validation: what evaluations look at; None reports training loss only.
        metric: ``metric(output, target)`` gives a batch's mean, for example the fraction that is
            right; None if the loss says it all.
        metric_name: key of the metric in records and the summary.
        loss_is_nats_per_byte: whether loss / ln 2 is reported as ``bits_per_byte``.
        labels: int64 tensor of shape (len(train),), the class of each sample, for a split by label;
            None takes ``train.targets`` or the last tensor of a TensorDataset where there is one.
        optimizer: makes the optimiser from the trainable parameters; None follows ``--optimizer``.
        defaults: options that the command line may override.
        facts: what a reader of the run should know, for example the number of files read.

    Raises:
        ConfigError: something of this is missing or of the wrong kind; the message names it.
    """

    model: nn.Module
    train: Dataset[Any]
    loss: Callable[[Any, Any], Tensor]
    validation: Dataset[Any] | None = None
    metric: Callable[[Any, Any], Tensor] | None = None
    metric_name: str = "accuracy"
    loss_is_nats_per_byte: bool = False
    labels: Tensor | None = None
    optimizer: OptimizerFactory | None = None
    defaults: Defaults = field(default_factory=Defaults)
    facts: dict[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given: dict[str, Any] = vars(self)
        if not isinstance(given["model"], nn.Module):
            raise ConfigError(f"Task.model must be a torch.nn.Module, got {_kind(given['model'])}")
        _check_dataset("train", given["train"])
        if given["validation"] is not None:
            _check_dataset("validation", given["validation"])
        for name in ("loss", "metric", "optimizer"):
            if not (callable(given[name]) or (given[name] is None and name != "loss")):
                raise ConfigError(f"Task.{name} must be a function, got {_kind(given[name])}")
        labels = given["labels"]
        if labels is None:
            return
        if not isinstance(labels, Tensor) or labels.ndim != 1:
            got = f"{labels.ndim} dimensions" if isinstance(labels, Tensor) else _kind(labels)
            raise ConfigError(
                f"Task.labels must be a one-dimensional integer tensor, one label a sample, got {got}"
            )
        if len(labels) != self.samples:
            raise ConfigError(
                f"Task.labels has {len(labels)} entries for the {self.samples} samples of Task.train"
            )

    @property
    def samples(self) -> int:
        """Number of training samples, over all ranks."""
        return len(cast(Sized, self.train))


tasks: Registry[Task] = Registry("task", context=("data", "seed", "stored"))


def make(spec: str, *, data: str | None = None, seed: int = 0, stored: StoredData | None = None) -> Task:
    """Build the task that ``spec`` names.

    Args:
        spec: ``name`` or ``name:key=value,...`` of a registered task, or ``module:function`` or
            ``module:function:key=value,...`` of a function that returns a ``Task``. The function may take
            keyword arguments ``data``, ``seed`` and ``stored``; its other parameters are its options.
        data: directory of the task's data; None is the task's own default.
        stored: makes the ``pydec.store.Dataset`` that ``data`` names, given its options (``fields``,
            ``part``, ``transform``); None: ``data`` names no data set of the store.
        seed: seed of the model's initial values. The global random state of torch is seeded with it
            before the task is built.

    Raises:
        ConfigError: no such task, module or function, or a function that returns no Task.
        SetupError: the data is not there.
    """
    torch.manual_seed(seed)
    head, colon, rest = spec.partition(":")
    if not colon or "=" in rest.partition(":")[0] or head in tasks:
        if head not in tasks:
            raise ConfigError(
                f"unknown task {spec!r}; known: {', '.join(tasks)}, or module:function for a task of your own"
            )
        _check_stored(tasks, spec, data, stored)
        return tasks.make(spec, data=data, seed=seed, stored=stored)
    name, _, options = rest.partition(":")
    function = cast("Callable[..., Task]", imported(head, name, f"task {spec!r}"))
    own: Registry[Task] = Registry("task", context=("data", "seed", "stored"))
    own.register(name)(function)
    _check_stored(own, name, data, stored)
    task = own.make(f"{name}:{options}" if options else name, data=data, seed=seed, stored=stored)
    if not isinstance(cast(object, task), Task):
        raise ConfigError(
            f"task {spec!r}: {name}() must return a pydec.train.Task(model=..., train=..., loss=...), "
            f"got {_kind(task)}"
        )
    return task


def _check_stored(known: Registry[Task], spec: str, data: str | None, stored: StoredData | None) -> None:
    if stored is not None and not known.takes(spec, "stored"):
        raise ConfigError(
            f"--data {data} is a data set of the store, and task {spec!r} reads none: its function must take "
            "`stored`, which makes a pydec.store.Dataset; or export the data set and name its folder"
        )


def _check_dataset(name: str, data: Any) -> None:
    if not (hasattr(data, "__len__") and (hasattr(data, "__getitem__") or hasattr(data, "batch"))):
        raise ConfigError(
            f"Task.{name} must be a map-style dataset with __len__ and __getitem__, got {_kind(data)}; "
            "put a stream into a list or a TensorDataset"
        )
    if not len(data):
        raise ConfigError(f"Task.{name} is empty; give it at least 1 sample")


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
