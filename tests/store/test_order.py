"""The order of an epoch: every sample once, the same everywhere, cut among ranks; others go on with it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydec.store.order import Order, Permutation, blocks, cut, left_over, share

shards = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 9))
def test_a_permutation_gives_every_number_once(n, key):
    found = Permutation(n, key)(np.arange(n))
    np.testing.assert_array_equal(np.sort(found), np.arange(n))


def test_permutations_look_random():
    n = 20_000
    found = Permutation(n, "a")(np.arange(n))
    assert abs(np.corrcoef(np.arange(n), found)[0, 1]) < 0.03
    assert np.mean(np.abs(np.diff(found)) == 1) < 0.001
    assert np.mean(found == Permutation(n, "b")(np.arange(n))) < 0.001
    counts, _ = np.histogram(found[: n // 10], bins=10, range=(0, n))
    assert counts.min() > 140


def test_a_permutation_of_very_many_takes_no_memory():
    permutation = Permutation(10**15, 3)
    tracemalloc.start()
    found = permutation(np.arange(10**14, 10**14 + 1000))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(np.unique(found)) == 1000
    assert found.max() > 10**14


@settings(max_examples=60, deadline=None)
@given(shards, st.integers(0, 5), st.integers(0, 5), st.booleans(), st.integers(1, 5000))
def test_an_epoch_is_every_sample_once(samples, seed, epoch, shuffle, window):
    sizes = [10 * n for n in samples]
    order = Order(samples, sizes, seed, epoch, shuffle=shuffle, window_bytes=window)
    whole = order(0, order.n)
    np.testing.assert_array_equal(np.sort(whole), np.arange(sum(samples)))
    middle = order.n // 2
    np.testing.assert_array_equal(order(middle, order.n), whole[middle:])
    first = np.array([0, *np.cumsum(samples)])
    for place in range(order.n):
        shard = int(np.searchsorted(first, whole[place], "right")) - 1
        assert shard in order.window(place)


def test_epochs_and_seeds_differ_and_come_back():
    def whole(seed: int, epoch: int) -> list[int]:
        return Order([50] * 4, [500] * 4, seed, epoch)(0, 200).tolist()

    assert whole(1, 2) == whole(1, 2)
    assert len({tuple(whole(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_one_window_mixes_all_shards_and_small_ones_do_not():
    samples = [100] * 10
    whole = Order(samples, samples, 0, 0)(0, 100) // 100
    assert len(np.unique(whole)) == 10
    small = Order(samples, samples, 0, 0, window_bytes=200)
    assert len(np.unique(small(0, 200) // 100)) == 2 == len(small.window(0))


@settings(max_examples=60, deadline=None)
@given(shards, st.integers(1, 7), st.integers(1, 7), st.data())
def test_other_ranks_go_on_with_what_is_left(samples, before, after, data):
    n = sum(samples)
    order = Order(samples, samples, 1, 2, window_bytes=50)
    parts = [share([(0, n)], rank, before) for rank in range(before)]
    lengths = [sum(stop - start for start, stop in part) for part in parts]
    assert max(lengths) - min(lengths) <= 1
    taken = [data.draw(st.integers(0, length)) for length in lengths]
    seen = [cut(part, 0, count) for part, count in zip(parts, taken, strict=True)]
    left = left_over([(0, n)], before, taken)
    again = [share(left, rank, after) for rank in range(after)]
    numbers = [order(a, b) for part in [*seen, *again] for a, b in part]
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.arange(n))


@pytest.mark.parametrize("start", [0, 3, 10, 25])
def test_blocks_begin_anywhere(start):
    order, mine = Order([10, 20], [1, 1], 0, 0), [(2, 9), (12, 30)]
    whole = np.concatenate([order(a, b) for a, b in mine])
    found = list(blocks(order, mine, start, 4))
    assert all(len(block) == 4 for block in found[:-1])
    np.testing.assert_array_equal(np.concatenate([*found, whole[:0]]), whole[start:])
