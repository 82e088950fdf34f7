"""How fast disagreement grows or shrinks when an algorithm's momentum acts on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from pydec.errors import ConfigError
from pydec.topology.base import Matrix, Topology

_EXACT_SIZE = 256  # up to here by eigenvalues; above by following random vectors
_ROUNDS = 400
_TRANSIENT = 100

Companion = Callable[[Matrix], Matrix]
"""(m, m) mixing matrix on disagreements -> (2m, 2m) matrix of a step on (x, memory)."""


def heavy_ball(momentum: float) -> Companion:
    """x+ = W x + momentum (x - x-), on (x, x-)."""

    def companion(w: Matrix) -> Matrix:
        one = np.eye(len(w))
        return np.block([[w + momentum * one, -momentum * one], [one, 0.0 * one]])

    return companion


def growth(topology: Topology, companion: Companion) -> float:
    """Factor per round by which disagreement grows in the long run, without gradients; below 1 is stable.

    The spectral radius of the product of the companion matrices over one period, on what is
    orthogonal to the mean. For schedules that never repeat, and for more than 256 ranks, the growth
    of random vectors over some hundred rounds.
    """
    n = topology.size
    if n == 1:
        return 0.0
    if topology.period == 0 or n > _EXACT_SIZE:
        return _followed(topology, companion)
    basis = _disagreements(n)
    product: Matrix = np.eye(2 * (n - 1))
    for round in range(topology.period):
        product = companion(basis.T @ topology.weights(round) @ basis) @ product
    radius = float(np.abs(np.linalg.eigvals(product)).max())
    return float(radius ** (1.0 / topology.period))


@lru_cache(maxsize=8)
def _disagreements(n: int) -> Matrix:
    """Orthonormal basis of the vectors that sum to 0, shape (n, n - 1)."""
    start = np.eye(n)
    start[:, 0] = 1.0
    return np.linalg.qr(start)[0][:, 1:]


def _followed(topology: Topology, companion: Companion) -> float:
    n = topology.size
    # Entries of the companion matrix as functions of W: it is affine in W, block by block.
    zero, one = companion(np.zeros((1, 1))), companion(np.ones((1, 1)))
    slope = one - zero
    x = np.random.default_rng(0).standard_normal((2, n, 4))
    x -= x.mean(axis=1, keepdims=True)
    logs = 0.0
    for round in range(_ROUNDS):
        mixed = topology.weights(round) @ x.transpose(1, 0, 2).reshape(n, -1)
        mixed = mixed.reshape(n, 2, -1).transpose(1, 0, 2)
        x = np.einsum("ij,jkl->ikl", zero, x) + np.einsum("ij,jkl->ikl", slope, mixed)
        x -= x.mean(axis=1, keepdims=True)
        size = float(np.linalg.norm(x))
        if size == 0.0:
            return 0.0
        x /= size
        logs += np.log(size) if round >= _TRANSIENT else 0.0
    return float(np.exp(logs / (_ROUNDS - _TRANSIENT)))


def stable_momentum(topology: Topology) -> float:
    """Largest momentum, to two digits, at which heavy-ball momentum on the disagreement dies out."""
    stable, unstable = 0, 100
    while unstable - stable > 1:
        middle = (stable + unstable) // 2
        if growth(topology, heavy_ball(middle / 100)) < 1.0:
            stable = middle
        else:
            unstable = middle
    return stable / 100


def check_stable(name: str, momentum: float, topology: Topology, instead: str) -> None:
    """Raise ConfigError if heavy-ball momentum makes the ranks' disagreement grow on this topology.

    Args:
        name: of the algorithm.
        momentum: what acts on the disagreement.
        topology: its schedule decides.
        instead: what else to use.
    """
    factor = growth(topology, heavy_ball(momentum))
    if factor >= 1.0:
        limit = stable_momentum(topology)
        raise ConfigError(
            f"{name}'s momentum of {momentum:g} makes the ranks' disagreement grow by {factor:.3g} times "
            f"per round on {topology.name} of {topology.size} ranks; use momentum={limit:g} or less, "
            f"a static symmetric graph such as ring, or {instead}"
        )
