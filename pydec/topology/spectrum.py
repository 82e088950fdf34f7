"""Eigenvalues at the ends of a spectrum, from products with a vector: no size x size matrix.

All operators here map vectors that sum to zero to vectors that sum to zero (columns sum to 1), so the
eigenvalue 1 of the mean is left out by starting there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pydec.topology.draw import random_words

Vector = NDArray[np.float64]

DENSE_SIZES = 1024
"""Up to here a dense eigenvalue routine is quicker, and exact."""
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
