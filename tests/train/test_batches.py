"""Batches cover a share once an epoch, in an order that seed and rank decide."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pydec.errors import ConfigError
from pydec.train.batches import Batches, fetch, labels_of

DATA = TensorDataset(torch.arange(20.0), torch.arange(20) % 3)
SHARE = np.arange(3, 17)


def inputs(seed: int, rank: int, count: int) -> list[list[float]]:
    return [batch[0][0].tolist() for batch in islice(Batches(DATA, SHARE, 4, seed, rank), count)]


def test_an_epoch_sees_no_sample_twice_and_only_its_own():
    epoch = inputs(0, 0, 3)  # 14 samples make 3 batches of 4
    seen = [value for batch in epoch for value in batch]
    assert len(set(seen)) == 12
    assert set(seen) <= set(SHARE.astype(float))


def test_seed_and_rank_decide_the_order_and_epochs_differ():
    assert inputs(0, 0, 6) == inputs(0, 0, 6)
    assert inputs(0, 0, 3) != inputs(1, 0, 3)
    assert inputs(0, 0, 3) != inputs(0, 1, 3)
    assert inputs(0, 0, 6)[:3] != inputs(0, 0, 6)[3:]


def test_a_batch_larger_than_the_share_is_refused():
    with pytest.raises(ConfigError, match=r"--batch-size 15 is more than the 14 samples of rank 2"):
        Batches(DATA, SHARE, 15, 0, 2)


class Pairs(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return np.float32(index), torch.tensor([index, -index]), index * 10


class Whole(Pairs):
    def batch(self, indices):
        return indices * 2, indices * 3


def test_any_dataset_can_be_batched():
    arguments, target = fetch(Pairs(), np.array([4, 1]))
    assert len(arguments) == 2
    assert arguments[1].tolist() == [[4, -4], [1, -1]]
    assert target.tolist() == [40, 10]
    arguments, target = fetch(Whole(), np.array([4, 1]))
    assert arguments[0].tolist() == [8, 2]
    assert target.tolist() == [12, 3]


def test_a_sample_without_target_is_refused():
    with pytest.raises(ConfigError, match=r"a sample must be a tuple \(input, ..., target\), got Tensor"):
        fetch([torch.zeros(2), torch.zeros(2)], np.array([0]))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="of length 1"):
        fetch(TensorDataset(torch.zeros(4)), np.array([0]))


def test_labels_are_found_or_asked_for():
    assert labels_of(DATA, None).tolist() == (np.arange(20) % 3).tolist()
    assert labels_of(Pairs(), torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match=r"give Task.labels"):
        labels_of(Pairs(), None)
    with pytest.raises(ConfigError, match=r"leave --alpha out"):
        labels_of(TensorDataset(torch.zeros(4), torch.zeros(4)), None)
