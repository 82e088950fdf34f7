"""Schedules from the user's own mixing matrices, checked first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import Matrix, Topology
from pydec.topology.graph import check_connected
from pydec.topology.schedule import Schedule, SparseRound

_TOLERANCE = 1e-9  # sums of float64 weights are this good; text with a few digits is not
_EXACT_SIZES = 1024  # up to here the product over a period is formed to see whether it averages exactly


def from_matrix(matrices: NDArray[np.floating[Any]] | Sequence[Any], name: str = "matrix") -> Topology:
    """Topology with given mixing matrices, one per round of a period.

    ``W[i, j]`` is the weight that rank i gives to what rank j sent. Rows and columns must sum to 1; if
    only columns do, the result has ``is_doubly_stochastic`` False and is for push-sum alone.

    Args:
        matrices: array of shape (n, n), or T of them: a sequence, or shape (T, n, n).
        name: for messages.

    Raises:
        ConfigError: shapes, values, sums or connections that do not fit, with the place and the number.
    """
    stack = _stack(matrices)
    rounds, size = stack.shape[0], stack.shape[1]
    doubly = True
    for t in range(rounds):
        doubly &= _check_sums(f"matrix {t} of {name}" if rounds > 1 else name, stack[t])
    union = np.any(stack > 0, axis=0)
    hears, sends = np.nonzero(union & ~np.eye(size, dtype=bool))
    check_connected(size, sends, hears)
    exact = _finite_time(stack) if doubly and size <= _EXACT_SIZES else None
    parts = [SparseRound.from_dense(matrix) for matrix in stack]
    return Schedule(name, parts, exact, doubly_stochastic=doubly)


def _stack(matrices: Any) -> Matrix:
    try:
        stack: Matrix = np.asarray(matrices, np.float64)
    except (TypeError, ValueError):
        raise ConfigError(
            f"mixing matrices must be numbers of shape (n, n) or (T, n, n), got {type(matrices).__name__} "
            "of something else or of different shapes"
        ) from None
    if stack.ndim == 2:
        stack = stack[None]
    if stack.ndim != 3 or stack.shape[1] != stack.shape[2] or 0 in stack.shape:
        raise ConfigError(
            f"mixing matrices must have shape (n, n) or (T, n, n) with n, T >= 1, got {np.shape(matrices)}"
        )
    wrong = ~(np.isfinite(stack) & (stack >= 0))
    if wrong.any():
        t, i, j = np.argwhere(wrong)[0]
        raise ConfigError(f"weights must be finite and not negative, got {stack[t, i, j]} at ({i}, {j})")
    return stack


def _check_sums(name: str, matrix: Matrix) -> bool:
    """Whether rows sum to 1 as well as columns; ConfigError if columns do not."""
    rows, columns = (np.abs(matrix.sum(axis=axis) - 1.0) for axis in (1, 0))
    if columns.max() <= _TOLERANCE:
        return bool(rows.max() <= _TOLERANCE)
    worst = int(columns.argmax())
    fact = (
        f"column {worst} of {name} sums to {float(matrix[:, worst].sum())!r}, not to 1 within {_TOLERANCE:g}"
    )
    if rows.max() <= _TOLERANCE:
        raise ConfigError(
            f"{fact}, while all rows do: averaging would drift away from the mean; use from_graph, which "
            "finds weights for the same graph, or the transposed matrix with a push-sum algorithm"
        )
    worst = int(rows.argmax())
    raise ConfigError(f"{fact}, and row {worst} sums to {float(matrix[worst].sum())!r}")


def _finite_time(stack: Matrix) -> int | None:
    """Rounds from round 0 after which the product is the averaging matrix, if one period does it."""
    size = stack.shape[1]
    product: Matrix = np.eye(size)
    for t, matrix in enumerate(stack):
        product = matrix @ product
        if np.abs(product - 1.0 / size).max() <= 1e-12:
            return t + 1
    return None
