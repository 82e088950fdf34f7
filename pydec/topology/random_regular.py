"""Random regular graphs: the same number of neighbours for everyone, drawn once."""

from __future__ import annotations

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Topology, check_size, topologies
from pydec.topology.draw import check_seed, draw_key, shuffled
from pydec.topology.graph import metropolis, reached

_ATTEMPTS = 200
_FRUITLESS = 20  # shuffles without a new edge, after which what is left over cannot be joined


@topologies.register("random-regular")
def random_regular(size: int, degree: int = 4, seed: int = 0) -> Topology:
    """A fixed random graph in which every rank has ``degree`` neighbours, weight 1 / (1 + degree) each.

    The second largest eigenvalue tends to (1 + 2 sqrt(degree - 1)) / (degree + 1) for many ranks
    (Friedman, "A proof of Alon's second eigenvalue conjecture", STOC 2003), which no graph of this degree
    can beat: a constant gap with a constant number of messages, unlike a ring or torus. With fewer
    than ``degree`` + 2 ranks it is the complete graph.

    Every rank builds the same graph from the seed in O(size x degree), more for dense ones.

    Source: Steger, Wormald, "Generating random regular graphs quickly", Comb. Prob. Comput. 1999.

    Args:
        size: number of ranks; size x degree is even.
        degree: neighbours of every rank, at least 3.
        seed: shared by all peers, in [0, 2^256).
    """
    check_size(size)
    check_seed(seed)
    if degree < 3:
        raise ConfigError(f"random-regular needs degree >= 3, got degree={degree}; degree 2 is a ring")
    name = f"random-regular:degree={degree}"
    degree = min(degree, size - 1)
    if size * degree % 2:
        raise ConfigError(
            f"a graph of {size} ranks with {degree} neighbours each would have {size * degree / 2} edges; "
            f"use degree={degree + 1}"
        )
    # Joining leftover ends gets stuck in dense graphs, so those are what a sparse one leaves out.
    sparse = degree <= (size - 1) / 2
    for attempt in range(_ATTEMPTS):
        codes = _join(size, degree if sparse else size - 1 - degree, seed, attempt)
        if codes is None:
            continue
        if not sparse:
            i, j = np.triu_indices(size, 1)
            codes = np.setdiff1d(i * size + j, codes)
        i, j = np.divmod(codes, size)
        sends, hears = np.concatenate([i, j]), np.concatenate([j, i])
        if reached(size, sends, hears).all():
            return metropolis(size, sends, hears, name)
    raise ConfigError(
        f"no connected graph of {size} ranks with {degree} neighbours in {_ATTEMPTS} draws; use a larger one"
    )


def _join(size: int, degree: int, seed: int, attempt: int) -> np.ndarray | None:
    """Codes i size + j, i < j, of a random simple graph, increasing; None if the last ends do not fit.

    Every rank has ``degree`` loose ends; ends are paired at random, pairs that would make a loop or a
    double edge are pulled apart and their ends paired again.
    """
    ends = np.repeat(np.arange(size, dtype=np.int64), degree)
    edges = np.zeros(0, np.int64)
    fruitless = shuffles = 0
    while ends.size:
        key = draw_key(b"pydec regular", seed, attempt << 32 | shuffles)
        pairs = ends[shuffled(key, ends.size)].reshape(-1, 2)
        low, high = pairs.min(axis=1), pairs.max(axis=1)
        codes = low * size + high
        fits = np.zeros(codes.size, bool)
        fits[np.unique(codes, return_index=True)[1]] = True
        fits &= low != high
        if edges.size:
            fits &= edges[np.minimum(np.searchsorted(edges, codes), edges.size - 1)] != codes
        edges = np.sort(np.concatenate([edges, codes[fits]]))
        ends = pairs[~fits].ravel()
        shuffles += 1
        fruitless = 0 if fits.any() else fruitless + 1
        if fruitless == _FRUITLESS:
            return None
    return edges
