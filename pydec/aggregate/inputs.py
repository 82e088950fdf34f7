"""The vectors that a rule averages, and what rules ask about them: each is computed once.

Rules that weigh whole vectors need only the n x n matrix of their inner products. It is computed in one pass,
in double, after the own model has been subtracted; iterations, searches and pre-aggregations then work on
that matrix, and one more pass forms the weighted sum. A pre-aggregation is a matrix of weights as well: the
vectors that it stands for are formed only for rules that look at coordinates, tile by tile in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.aggregate.views import gram_of, mix, room_like, tile_of

if TYPE_CHECKING:
    import torch

Matrix = NDArray[np.float64]
Weights = NDArray[np.float64]
Vector: TypeAlias = "NDArray[np.floating[Any]] | torch.Tensor"
"""float32, float64, float16, or torch's bfloat16, shape (d,), contiguous; on a GPU float32."""
Coordinates = Callable[[Sequence[Any], int, Any], object]
"""A kernel that averages coordinate by coordinate: (vectors, f, out)."""

Sorting = Callable[[Sequence[Any], int, Any, NDArray[np.float64]], object]
"""The same, that also writes the largest magnitude of all values: (vectors, f, out, largest)."""

_CLOSE = 1e-6  # squared distance over squared norm below which inner products about the origin cancel
_ZERO = 1e-12  # weight of the centre that is rounding


class Inputs:
    """n vectors z_k = c + sum_j matrix[k, j] (x_j - c); the x_j themselves without a matrix.

    Args:
        vectors: the x_j, finite, of one type and shape (d,).
        centre: c, finite; the origin if None.
        gram: their Gram matrix about c, if it is known.
        matrix: shape (n, number of vectors); None is the identity.
        squared: ||x_j - c||^2, if it is known.
    """

    def __init__(
        self,
        vectors: Sequence[Any],
        centre: Any = None,
        gram: Matrix | None = None,
        matrix: Matrix | None = None,
        squared: Weights | None = None,
    ) -> None:
        self.vectors = list(vectors)
        self.centre = centre
        self.matrix = matrix
        self._gram, self._squared = gram, squared

    @property
    def n(self) -> int:
        """How many vectors there are."""
        return len(self.vectors) if self.matrix is None else len(self.matrix)

    @cached_property
    def _plain_gram(self) -> Matrix:
        return gram_of(self.vectors, self.centre) if self._gram is None else self._gram

    @cached_property
    def gram(self) -> Matrix:
        """<z_k - c, z_l - c>, float64, shape (n, n)."""
        return self._mixed(self._plain_gram)

    @property
    def squared(self) -> Weights:
        """||z_k - c||^2, shape (n,)."""
        if self.matrix is None and self._squared is not None:
            return self._squared
        return np.maximum(np.diagonal(self.gram), 0.0)

    @cached_property
    def local(self) -> Matrix:
        """The same about a point near the vectors, for rules that do not depend on c.

        That is c itself, unless c is the origin and vectors lie so close together, seen from there, that
        their distances would cancel: then it is the vector of median norm, which f < n / 2 liars cannot move
        beyond the honest ones.
        """
        gram = self._plain_gram
        affine = self.matrix is None or np.allclose(self.matrix.sum(axis=1), 1.0, rtol=0.0, atol=1e-9)
        if self.centre is not None or len(gram) < 2 or not affine:
            return self.gram
        sizes = np.diagonal(gram)
        far = kernels.squared_distances(gram) + np.diag(np.full(len(gram), np.inf))
        if np.all(far.min(axis=1) >= _CLOSE * sizes):
            return self.gram
        middle = int(np.argsort(sizes, kind="stable")[len(sizes) // 2])
        return self._mixed(gram_of(self.vectors, self.vectors[middle]))

    @cached_property
    def distances(self) -> Matrix:
        """Squared distances of all pairs, shape (n, n); 0 on the diagonal."""
        return kernels.squared_distances(self.local)

    def _mixed(self, gram: Matrix) -> Matrix:
        return gram if self.matrix is None else np.asarray(self.matrix @ gram @ self.matrix.T)

    def mixed(self, matrix: Matrix) -> Inputs:
        """The vectors c + sum_k matrix[m, k] (z_k - c)."""
        whole = matrix if self.matrix is None else np.asarray(matrix @ self.matrix)
        return Inputs(self.vectors, self.centre, self._gram, whole)

    def combine(self, weights: Weights, out: Any) -> None:
        """``out = c + sum_k weights[k] (z_k - c)``; vectors of weight 0 are not read.

        Args:
            weights: shape (n,); where they sum to 1, c has no part in it.
            out: shape (d,), overwritten; may be one of the vectors.
        """
        whole = weights if self.matrix is None else self.matrix.T @ weights
        _mix(self.vectors, self.centre, whole, out)

    def by_coordinate(self, kernel: Coordinates, f: int, out: Any, chosen: Sequence[int] = ()) -> None:
        """Average coordinate by coordinate.

        Args:
            kernel: called with the vectors, f and where the result goes.
            f: passed on.
            out: shape (d,), overwritten; may be one of the vectors.
            chosen: which of the vectors; all if empty.
        """
        rows = list(chosen) or list(range(self.n))
        if self.matrix is None:
            kernel([self.vectors[row] for row in rows], f, out)
            return
        d, step = len(self.vectors[0]), tile_of(self.vectors[0])
        scratch = [room_like(self.vectors[0], min(d, step)) for _ in rows]
        for start in range(0, d, step):
            stop = min(d, start + step)
            pieces = [vector[start:stop] for vector in self.vectors]
            centre = None if self.centre is None else self.centre[start:stop]
            tiles = [part[: stop - start] for part in scratch]
            for row, tile in zip(rows, tiles, strict=True):
                _mix(pieces, centre, self.matrix[row], tile)
            kernel(tiles, f, out[start:stop])


def _mix(vectors: Sequence[Any], centre: Any, weights: Weights, out: Any) -> None:
    terms = [(float(w), vector) for w, vector in zip(weights, vectors, strict=True) if w != 0.0]
    rest = 1.0 - float(weights.sum())
    if centre is not None and abs(rest) > _ZERO:
        terms.insert(0, (rest, centre))
    if terms:
        mix([vector for _, vector in terms], [weight for weight, _ in terms], out)
    else:
        out[:] = 0
