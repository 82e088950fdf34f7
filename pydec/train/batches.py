"""Batches of one rank's share, in an order that (seed, rank) decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
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
        epoch: which pass is the first.
        seen: bool array over all samples: left out of the first pass.

    Raises:
        ConfigError: a share with fewer samples than one batch.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        share: Indices,
        batch_size: int,
        seed: int,
        rank: int,
        *,
        epoch: int = 0,
        seen: NDArray[np.bool_] | None = None,
    ) -> None:
        if len(share) < batch_size:
            raise ConfigError(
                f"--batch-size {batch_size} is more than the {len(share)} samples of rank {rank}; "
                f"use at most {len(share)}, or fewer ranks"
            )
        self.epoch = epoch
        self._dataset = dataset
        self._share = share
        self._batch_size = batch_size
        self._key = (seed, rank)
        self._left_out = share[:0] if seen is None else share[seen[share]]
        order = self._permutation(epoch)
        self._order = order if seen is None else order[~seen[order]]
        self._at = 0
        self.flipped = 0
        """Number of classes c of which labels y are turned into c - 1 - y; 0 leaves them."""

    def skip(self, batches: int) -> None:
        """Begin as many batches later; costs one permutation."""
        here = (len(self._order) - self._at) // self._batch_size
        if batches <= here:
            self._at += batches * self._batch_size
            return
        epochs, more = divmod(batches - here - 1, len(self._share) // self._batch_size)
        self.epoch += 1 + epochs
        self._order, self._left_out = self._permutation(self.epoch), self._share[:0]
        self._at = (more + 1) * self._batch_size

    @property
    def seen(self) -> Indices:
        """Samples of the share that have had their turn in the pass where ``skip`` has come to."""
        return np.concatenate([self._left_out, self._order[: self._at]])

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.rows():
            inputs, target = fetch(self._dataset, rows)
            yield inputs, (self.flipped - 1 - target if self.flipped else target)

    def rows(self) -> Iterator[Indices]:
        """The numbers of every batch's samples."""
        epoch, order, at = self.epoch, self._order, self._at
        while True:
            for start in range(at, len(order) - self._batch_size + 1, self._batch_size):
                yield order[start : start + self._batch_size]
            epoch += 1
            order, at = self._permutation(epoch), 0

    def _permutation(self, epoch: int) -> Indices:
        random = np.random.Generator(np.random.PCG64([*self._key, epoch]))
        return self._share[random.permutation(len(self._share))]


def batches_after(
    dataset: Dataset[Any],
    samples: int,
    split: Callable[[int], Sequence[Indices]],
    history: Sequence[tuple[int, int]],
    batch_size: int,
    seed: int,
    rank: int,
    size: int,
) -> Batches:
    """A rank's batches after steps that as many ranks, or others, have taken.

    After a change of their number the ranks share the samples anew; in the first pass each leaves out what
    any rank before has seen in the pass that was under way.

    Args:
        dataset: map-style dataset.
        samples: its length.
        split: the shares of a number of ranks.
        history: (ranks, steps that each of them took), the oldest first.
        batch_size, seed: as for ``Batches``.
        rank, size: of the ranks that go on.
    """
    earlier = list(history)
    steps = earlier.pop()[1] if earlier and earlier[-1][0] == size else 0
    epoch, seen = 0, None
    for ranks, taken in earlier:
        marks, latest = np.zeros(samples, np.bool_), epoch
        for other, share in enumerate(split(ranks)):
            before = Batches(dataset, share, batch_size, seed, other, epoch=epoch, seen=seen)
            before.skip(taken)
            marks[before.seen] = True
            latest = max(latest, before.epoch)
        epoch, seen = latest, marks
    mine = Batches(dataset, split(size)[rank], batch_size, seed, rank, epoch=epoch, seen=seen)
    mine.skip(steps)
    return mine


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
        batch = tuple(tensor.index_select(0, rows) for tensor in dataset.tensors)
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
