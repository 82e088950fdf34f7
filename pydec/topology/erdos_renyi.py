"""Erdos-Renyi graphs: edges between random pairs, drawn once."""

from __future__ import annotations

import math

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.draw import check_seed, draw_key, random_words
from pydec.topology.graph import metropolis, reached

_ATTEMPTS = 200


@topologies.register("erdos-renyi")
def erdos_renyi(size: int, p: float | None = None, seed: int = 0) -> Topology:
    """A fixed random graph with the share p of all pairs as edges, Metropolis-Hastings weights.

    Uniform among the connected graphs with round(p size (size - 1) / 2) edges, so a rank has p (size - 1)
    neighbours in the mean. Static and symmetric; every rank builds the same graph from the seed in
    O(size + edges).

    Source: Erdos, Renyi, "On random graphs I", Publ. Math. Debrecen 1959: the model G(n, m).

    Args:
        size: number of ranks.
        p: share of the pairs that are edges, in (0, 1]; 2 ln(size) / size if None, twice of where
            random graphs become connected.
        seed: shared by all peers, in [0, 2^256).
    """
    check_size(size)
    check_seed(seed)
    pairs = size * (size - 1) // 2
    if p is None:
        p = min(1.0, 2 * math.log(size) / size) if size > 1 else 1.0
    if not 0.0 < p <= 1.0:
        raise ConfigError(f"erdos-renyi needs p in (0, 1], got p={p}")
    edges = round(p * pairs)
    if edges < size - 1:
        raise ConfigError(
            f"erdos-renyi with p={p:.3g} has {edges} edges, and connecting {size} ranks takes at least "
            f"{size - 1}; use p={min(1.0, 2 * math.log(size) / size):.2g} or more"
        )
    for attempt in range(_ATTEMPTS):
        i, j = _pairs(size, edges, draw_key(b"pydec edges", seed, attempt))
        sends, hears = np.concatenate([i, j]), np.concatenate([j, i])
        if reached(size, sends, hears).all():
            return metropolis(size, sends, hears, f"erdos-renyi:p={p:.6g}")
    raise ConfigError(
        f"erdos-renyi with p={p:.3g} on {size} ranks was not connected in {_ATTEMPTS} draws; "
        f"use p={min(1.0, 2 * math.log(size) / size):.2g} or more, or random-regular"
    )


def _pairs(size: int, edges: int, key: int) -> tuple[np.ndarray, np.ndarray]:
    """``edges`` different pairs i < j, each set of pairs equally likely up to pairs / 2^64."""
    pairs = size * (size - 1) // 2
    if 2 * edges > pairs:  # so many that drawing one by one would mostly repeat: sort all
        codes = np.sort(np.argsort(random_words(key, pairs), kind="stable")[:edges])
    else:
        codes = np.zeros(0, np.int64)
        drawn = 0
        while codes.size < edges:
            more = 2 * (edges - codes.size) + 16
            words = random_words(key, more, drawn) % np.uint64(pairs)
            drawn += more
            codes = np.concatenate([codes, words.astype(np.int64)])
            codes = codes[np.sort(np.unique(codes, return_index=True)[1])]  # the first of each, in order
        codes = codes[:edges]
    # The pairs in the order (0,1), (0,2), (1,2), (0,3), ...: column j starts at j (j - 1) / 2.
    starts = np.arange(size, dtype=np.int64)
    starts = starts * (starts - 1) // 2
    j = np.searchsorted(starts, codes, side="right") - 1
    return codes - starts[j], j
