"""Eigenvalues at the ends of a spectrum, from products with a vector: no size x size matrix.

All operators here map vectors that sum to zero to vectors that sum to zero (columns sum to 1), so the
eigenvalue 1 of the mean is left out by starting there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.draw import random_words

if TYPE_CHECKING:
    from pydec.topology.base import Topology

Vector = NDArray[np.float64]

DENSE_SIZES = 1024
"""Up to here a dense eigenvalue routine is quicker, and exact."""
_RESISTANCE_SIZES = 4096
_BASIS_BYTES = 256 << 20
_MOST_STEPS = 1500
_FIRST_CHECK = 16
_RESIDUAL = 1e-9


def ritz_values(
    apply: Callable[[Vector], Vector], n: int, *, symmetric: bool
) -> NDArray[np.float64] | NDArray[np.complex128]:
    """Approximate eigenvalues on the vectors that sum to zero; the outermost converge first.

    Arnoldi's method with full reorthogonalisation (Lanczos' for symmetric operators), from a fixed
    start, until the eigenvalues at both ends of the real axis and of the largest magnitude have a residual
    below 1e-9, or for at most 1500 steps and 256 MiB. That is ample for graphs that mix well; of long
    chains and rings of many thousands the gap then comes out too large, never too small if symmetric.

    Args:
        apply: the operator; takes and returns float64 of shape (n,), sums of zero stay zero.
        n: size of the vectors, at least 2.
        symmetric: whether the operator is.
    """
    steps = min(n - 1, _MOST_STEPS, max(2 * _FIRST_CHECK, _BASIS_BYTES // (8 * n)))
    basis = np.empty((steps + 1, n))
    projected = np.zeros((steps + 1, steps))
    start = (random_words(0x70796465, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    start -= start.mean()
    basis[0] = start / np.linalg.norm(start)
    check = _FIRST_CHECK
    for step in range(steps):
        image = apply(basis[step])
        image = image - image.mean()  # rounding brings the mean back, which would take over
        for _ in range(2):  # once loses orthogonality, twice is enough
            along = basis[: step + 1] @ image
            image -= along @ basis[: step + 1]
            projected[: step + 1, step] += along
        rest = float(np.linalg.norm(image))
        done = rest < 1e-13 or step + 1 == steps
        if done or step + 1 >= check:
            check += check // 3  # the checks together cost a few of the last one
            small = projected[: step + 1, : step + 1]
            values, vectors = np.linalg.eigh(small) if symmetric else np.linalg.eig(small)
            ends = [np.argmax(np.abs(values)), np.argmax(values.real), np.argmin(values.real)]
            if done or np.abs(vectors[-1, ends]).max() * rest < _RESIDUAL:
                return values
        projected[step + 1, step] = rest
        basis[step + 1] = image / rest
    raise AssertionError("the last step returns")


def averaging_constants(topology: Topology) -> tuple[float, float]:
    """chi1 and chi2 of a graph on which every rank averages with one random neighbour per unit of time.

    An edge is then used 1/d_i + 1/d_j times per unit, d the numbers of neighbours. With the Laplacian of
    these rates, chi1 is the inverse of its smallest positive eigenvalue, and chi2 half of the largest
    effective resistance of an edge; chi2 <= chi1, and averages agree at the rate 1 / sqrt(chi1 chi2) with
    momentum, 1 / chi1 without.

    Source: Nabli, Belilovsky, Oyallon, "A2CiD2", NeurIPS 2023, arXiv:2306.08289, section 3.

    Args:
        topology: connected, the same in every round, at least 2 ranks.

    Raises:
        ConfigError: more than 4096 ranks, whose resistances would take minutes.
    """
    n = topology.size
    if n > _RESISTANCE_SIZES:
        raise ConfigError(f"resistances are computed for at most {_RESISTANCE_SIZES} ranks, got {n}")
    neighbours = [topology.neighbors(rank, 0) for rank in range(n)]
    rates = np.zeros((n, n))
    for rank, others in enumerate(neighbours):
        rates[rank, others] = [1 / len(others) + 1 / len(neighbours[other]) for other in others]
    laplacian = np.diag(rates.sum(axis=1)) - rates
    # Adding J moves the eigenvalue 0 of the constant vector to 1 and leaves differences alone.
    inverse = np.linalg.inv(laplacian + 1.0 / n)
    diagonal = np.diag(inverse)
    resistances = diagonal[:, None] + diagonal - 2.0 * inverse
    smallest = float(np.linalg.eigvalsh(laplacian)[1])
    return 1.0 / smallest, 0.5 * float(resistances[rates > 0.0].max())
