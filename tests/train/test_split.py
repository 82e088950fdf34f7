"""Every sample has one owner, shares are equal, and alpha decides how skewed they are."""

from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.train.split import digest, dirichlet, iid


@pytest.mark.parametrize(("samples", "size"), [(1, 1), (10, 3), (60, 4), (100, 100)])
def test_iid_shares_are_a_partition_into_equal_parts(samples, size):
    shares = iid(samples, size, seed=3)
    assert sorted(np.concatenate(shares)) == list(range(samples))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [1, 3, 10, 23])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 100.0])
def test_dirichlet_shares_are_a_partition_into_equal_parts(size, alpha):
    labels = np.random.default_rng(0).integers(0, 10, 2000)
    shares = dirichlet(labels, size, alpha, seed=5)
    assert len(shares) == size
    assert sorted(np.concatenate(shares)) == list(range(2000))
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def test_a_small_alpha_gives_a_rank_few_classes_and_a_large_one_all():
    labels = np.repeat(np.arange(10), 500)

    def largest_class(alpha: float) -> float:
        shares = dirichlet(labels, 5, alpha, seed=1)
        return float(
            np.mean([np.bincount(labels[share], minlength=10).max() / len(share) for share in shares])
        )

    assert largest_class(0.05) > 0.3
    assert largest_class(1000.0) < 0.13


@pytest.mark.parametrize(
    "split", [lambda seed: iid(500, 4, seed), lambda seed: dirichlet(LABELS, 4, 0.1, seed)]
)
def test_the_seed_decides(split):
    assert digest(split(1)) == digest(split(1))
    assert digest(split(1)) != digest(split(2))


LABELS = np.random.default_rng(9).integers(0, 7, 500)


def test_too_few_samples_name_both_numbers():
    with pytest.raises(ConfigError, match=r"3 training samples leave some of 4 ranks without data"):
        iid(3, 4, 0)
    with pytest.raises(ConfigError, match=r"use fewer ranks"):
        dirichlet(np.zeros(3, np.int64), 4, 0.1, 0)


def test_a_single_class_is_dealt_out_too():
    shares = dirichlet(np.zeros(400, np.int64), 4, 0.1, seed=0)
    assert [len(share) for share in shares] == [100] * 4


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_out_of_range_is_named(alpha):
    with pytest.raises(ConfigError, match="--alpha must be above 0"):
        dirichlet(np.zeros(10, np.int64), 2, alpha, 0)
