"""Batches cover a share once an epoch, in an order that seed and rank decide."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pydec.errors import ConfigError
from pydec.train.batches import Batches, batches_after, fetch, labels_of

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


def drawn(batches: Batches, count: int) -> list[list[float]]:
    return [batch[0][0].tolist() for batch in islice(batches, count)]


@pytest.mark.parametrize("steps", [0, 1, 3, 4, 6, 7, 20])
def test_skipping_is_drawing_and_throwing_away(steps):
    later = Batches(DATA, SHARE, 4, 5, 1)
    later.skip(steps // 2)
    later.skip(steps - steps // 2)
    assert drawn(later, 5) == drawn(Batches(DATA, SHARE, 4, 5, 1), steps + 5)[steps:]


def halves(ranks: int) -> list[np.ndarray]:
    return np.array_split(np.random.default_rng(ranks).permutation(20), ranks)


def test_as_many_ranks_go_on_with_the_same_batches():
    def after(history, rank):
        return batches_after(DATA, 20, halves, history, 2, 0, rank, 2)

    for rank in range(2):
        whole = drawn(after([], rank), 12)
        assert drawn(after([(2, 7)], rank), 5) == whole[7:]


@pytest.mark.parametrize("ranks", [1, 3, 5])
def test_other_ranks_see_in_this_pass_only_what_nobody_has_seen(ranks):
    before = [drawn(batches_after(DATA, 20, halves, [], 2, 0, rank, 2), 3) for rank in range(2)]
    seen = {value for batches in before for batch in batches for value in batch}
    assert len(seen) == 12
    after = [batches_after(DATA, 20, halves, [(2, 3)], 2, 0, rank, ranks) for rank in range(ranks)]
    left = sum((len(np.setdiff1d(halves(ranks)[rank], [int(v) for v in seen])) // 2) for rank in range(ranks))
    first = {
        value
        for rank, batches in enumerate(after)
        for batch in drawn(batches, len(np.setdiff1d(halves(ranks)[rank], [int(v) for v in seen])) // 2)
        for value in batch
    }
    assert not first & seen
    assert len(first) == 2 * left


def test_two_changes_of_the_number_of_ranks_still_see_nothing_twice():
    data = TensorDataset(torch.arange(200.0), torch.zeros(200))

    def split(ranks: int) -> list[np.ndarray]:
        return np.array_split(np.random.default_rng(ranks).permutation(200), ranks)

    seen: list[float] = []
    history: list[tuple[int, int]] = []
    for ranks, steps in ((2, 8), (4, 4), (3, 2)):
        for rank in range(ranks):
            batches = batches_after(data, 200, split, history, 4, 0, rank, ranks)
            seen += [value for batch in drawn(batches, steps) for value in batch]
        history.append((ranks, steps))
    assert len(seen) == len(set(seen)) == 4 * (16 + 16 + 6)
