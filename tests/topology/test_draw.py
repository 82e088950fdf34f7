from __future__ import annotations

import numpy as np
import pytest

from pydec.topology.draw import Draws, Permutation, draw_key, mix64, random_words, shuffled


def test_words_are_those_of_splitmix64():
    # The first outputs for seed 1234567, as published with the reference implementation.
    assert random_words(1234567, 3).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
    assert mix64(1234567 + 0x9E3779B97F4A7C15) == 6457827717110365317
    assert random_words(5, 4, start=3).tolist() == random_words(5, 7)[3:].tolist()


def test_keys_differ_by_purpose_seed_and_number():
    keys = {draw_key(p, seed, t) for p in (b"a", b"b") for seed in (0, 1, 2**255) for t in (0, 1, 2**60)}
    assert len(keys) == 18


@pytest.mark.parametrize("size", [1, 2, 5, 4096, 4097, 5000, 70_000])
def test_permutations_go_there_and_back(size):
    order = Permutation(size, key=77)
    table = order.table()
    assert table.dtype == np.int64
    np.testing.assert_array_equal(np.sort(table), np.arange(size))
    for place in [0, size // 3, size - 1]:
        assert order.at(place) == table[place]
        assert order.position(order.at(place)) == place


def test_small_permutations_are_sorted_words():
    np.testing.assert_array_equal(Permutation(100, 3).table(), shuffled(3, 100))


def test_large_permutations_look_random():
    """Displacements of neighbours, fixed points and halves, against what a uniform one would have."""
    size, keys = 6000, 200
    fixed, kept, low = [], [], []
    for key in range(keys):
        table = Permutation(size, mix64(key + 1)).table()
        fixed.append(np.count_nonzero(table == np.arange(size)))
        kept.append(np.count_nonzero(np.abs(np.diff(table)) == 1))
        low.append(np.count_nonzero(table[: size // 2] < size // 2))
    assert np.mean(fixed) == pytest.approx(1, abs=5 / np.sqrt(keys))
    assert np.mean(kept) == pytest.approx(2, abs=5 * np.sqrt(2 / keys))
    assert np.mean(low) == pytest.approx(size / 4, abs=5 * np.sqrt(size / 16 / keys))
    assert np.std(low) == pytest.approx(np.sqrt(size / 16), rel=0.25)


def test_samples_are_sets_that_are_equally_likely():
    counts = np.zeros(6)
    for key in range(3000):
        drawn = Draws(mix64(key)).sample(6, 2)
        assert len(set(drawn)) == 2
        assert drawn == sorted(drawn)
        counts[drawn] += 1
    np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.045)
    assert Draws(1).sample(4, 4) == [0, 1, 2, 3]
    assert Draws(1).sample(4, 0) == []
