"""Batches of one rank's share, in an order that (seed, rank) decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset, default_collate

from pydec.errors import ConfigError
from pydec.train.split import Indices

Batch = tuple[tuple[Any, ...], Any]
"""The model's arguments and the target, each with a leading batch dimension."""


class Batches:
    """Endless batches over one share: a new permutation each epoch, the ragged tail left out.

    Args:
        dataset: map-style dataset, see ``Task``.
        share: numbers of this rank's samples, shape (n,).
        batch_size: samples in a batch.
        seed: with ``rank`` the seed of every permutation.
        rank: whose share this is.

    Raises:
        ConfigError: a share with fewer samples than one batch.
    """

    def __init__(self, dataset: Dataset[Any], share: Indices, batch_size: int, seed: int, rank: int) -> None:
        if len(share) < batch_size:
            raise ConfigError(
                f"--batch-size {batch_size} is more than the {len(share)} samples of rank {rank}; "
                f"use at most {len(share)}, or fewer ranks"
            )
        self._dataset = dataset
        self._share = share
        self._batch_size = batch_size
        self._key = (seed, rank)

    def __iter__(self) -> Iterator[Batch]:
        epoch = 0
        while True:
            random = np.random.Generator(np.random.PCG64([*self._key, epoch]))
            order = self._share[random.permutation(len(self._share))]
            for start in range(0, len(order) - self._batch_size + 1, self._batch_size):
                yield fetch(self._dataset, order[start : start + self._batch_size])
            epoch += 1


def fetch(dataset: Dataset[Any], indices: Indices) -> Batch:
    """Samples with these numbers as one batch.

    Raises:
        ConfigError: a sample is no tuple of at least (input, target).
    """
    whole = getattr(dataset, "batch", None)
    if whole is not None:
        batch = cast("Callable[[Tensor], Any]", whole)(torch.from_numpy(indices))
    elif isinstance(dataset, TensorDataset):
        rows = torch.from_numpy(indices)
        batch = tuple(tensor[rows] for tensor in dataset.tensors)
    else:
        batch = default_collate([dataset[int(i)] for i in indices])
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ConfigError(
            f"a sample must be a tuple (input, ..., target), got {type(batch).__name__}"
            + (f" of length {len(batch)}" if isinstance(batch, (tuple, list)) else "")
        )
    return tuple(batch[:-1]), batch[-1]


def labels_of(dataset: Dataset[Any], given: Tensor | None) -> Indices:
    """Class of each sample, shape (n,), for a split by label.

    Raises:
        ConfigError: the dataset does not say.
    """
    labels: Any = given
    if labels is None:
        labels = getattr(dataset, "targets", None)
    if labels is None and isinstance(dataset, TensorDataset):
        labels = dataset.tensors[-1]
    if labels is not None:
        array = np.asarray(labels)
        if array.ndim == 1 and len(array) and array.dtype.kind in "iu":
            return array.astype(np.int64)
    raise ConfigError(
        "--alpha splits by label and this task has none; give Task.labels, one integer for each sample, "
        "or leave --alpha out"
    )
