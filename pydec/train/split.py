"""Which rank trains on which samples: equal shares, independent or skewed by label.

A split is a function of (number of samples or labels, ranks, seed) alone, so every rank computes all of
it and takes its own share; nothing is sent.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError

Indices = NDArray[np.int64]

BLOCK = 10  # ranks that share one Dirichlet draw
_ATTEMPTS = 200  # then the most even of these draws; the equal cut that follows gives every rank its share


def iid(samples: int, size: int, seed: int) -> list[Indices]:
    """Cut a seeded permutation of all samples into ``size`` shares whose lengths differ by at most 1.

    Args:
        samples: number of samples.
        size: number of ranks.
        seed: same seed, same shares.

    Returns:
        One sorted int64 array of sample numbers for each rank; together every sample once.

    Raises:
        ConfigError: fewer samples than ranks.
    """
    _check(samples, size)
    return _cut(_generator(seed).permutation(samples), size)


def dirichlet(labels: NDArray[np.int64], size: int, alpha: float, seed: int) -> list[Indices]:
    """Shares whose mixture of labels is skewed: the smaller ``alpha``, the fewer labels a rank sees.

    Ranks form blocks of 10. In each block, every class is dealt out in proportions drawn from
    Dirichlet(alpha), without the ranks that already hold their share; the draw is repeated, at most
    200 times, until every rank holds at least half the mean. The ranks' samples are then put in one
    row, which is cut into equal shares, so all ranks do the same number of steps.

    Source: the partition of Lin, Karimireddy, Stich, Jaggi, "Quasi-global momentum", ICML 2021,
    arXiv:2102.04761, section 5, after Hsu, Qi, Brown, arXiv:1909.06335.

    Args:
        labels: shape (samples,), the class of each sample.
        size: number of ranks.
        alpha: concentration, above 0; 100 is nearly iid, 0.1 gives one or two classes a rank.
        seed: same seed, same shares.

    Returns:
        As ``iid``; lengths differ by at most 1.

    Raises:
        ConfigError: alpha not above 0, or fewer samples than ranks.
    """
    if not (alpha > 0 and np.isfinite(alpha)):
        raise ConfigError(f"--alpha must be above 0 and finite, got {alpha}")
    _check(len(labels), size)
    random = _generator(seed)
    order = random.permutation(len(labels))
    blocks = [range(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK)]
    bounds = [len(order) * block.start // size for block in blocks] + [len(order)]
    row: list[Indices] = []
    for block, start, stop in zip(blocks, bounds, bounds[1:], strict=False):
        row.extend(_deal(labels, order[start:stop], len(block), alpha, random))
    return _cut(np.concatenate(row), size)


def digest(shares: list[Indices]) -> str:
    """Short name of a split, equal exactly when all ranks got the same samples."""
    whole = hashlib.sha256()
    for share in shares:
        whole.update(len(share).to_bytes(8, "little"))
        whole.update(share.astype("<i8").tobytes())
    return whole.hexdigest()[:16]


def _deal(
    labels: NDArray[np.int64], pool: Indices, ranks: int, alpha: float, random: np.random.RandomState
) -> list[Indices]:
    """Deal the samples in ``pool`` to ``ranks`` ranks, class by class."""
    full = len(pool) / ranks
    by_class = [pool[labels[pool] == label] for label in np.unique(labels[pool])]
    best: list[list[Indices]] = []
    most = -1
    for _ in range(_ATTEMPTS):
        hands: list[list[Indices]] = [[] for _ in range(ranks)]
        sizes = np.zeros(ranks, np.int64)
        for members in by_class:
            share = random.dirichlet(np.full(ranks, alpha)) * (sizes < full)
            if not share.sum() > 0:  # tiny alpha: the draw went to full ranks only, or underflowed
                share = (sizes < full).astype(np.float64)
            cuts = (np.cumsum(share / share.sum()) * len(members)).astype(np.int64)[:-1]
            for rank, part in enumerate(np.split(members, cuts)):
                hands[rank].append(part)
                sizes[rank] += len(part)
        if sizes.min() > most:
            best, most = hands, int(sizes.min())
        if most >= int(0.5 * full):
            break
    return [np.concatenate(hand) for hand in best]


def _cut(row: Indices, size: int) -> list[Indices]:
    bounds = [len(row) * rank // size for rank in range(size + 1)]
    return [np.sort(row[a:b]).astype(np.int64) for a, b in pairwise(bounds)]


def _check(samples: int, size: int) -> None:
    if samples < size:
        raise ConfigError(
            f"{samples} training samples leave some of {size} ranks without data; use fewer ranks"
        )


def _generator(seed: int) -> np.random.RandomState:
    # The legacy generator: NumPy promises that its streams never change, a Generator's may.
    key = hashlib.sha256(f"pydec split {seed}".encode()).digest()[:16]
    return np.random.RandomState(np.frombuffer(key, "<u4"))
