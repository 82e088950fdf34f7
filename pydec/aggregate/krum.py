"""Krum, Multi-Krum and Bulyan: vectors are chosen by how close their nearest others are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec import kernels
from pydec.aggregate.base import Aggregator, aggregators
from pydec.aggregate.inputs import Inputs, Matrix
from pydec.aggregate.views import is_on_gpu, tile_of
from pydec.errors import ConfigError


def scores(distances: Matrix, f: int) -> NDArray[np.float64]:
    """Krum's score of every vector: the sum of its squared distances to the n - f - 2 nearest others.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
    Tolerant Gradient Descent", NeurIPS 2017, section 4. (ByzFL and byzpy count n - f - 1 others.)
    """
    n = len(distances)
    far = distances + np.diag(np.full(n, -1.0))  # the vector itself comes first, whatever the ties
    return np.asarray(np.sort(far, axis=1)[:, 1 : n - f - 1].sum(axis=1))


@aggregators.register("krum")
@dataclass(frozen=True)
class Krum(Aggregator):
    """The vector whose n - f - 2 nearest others have the least sum of squared distances to it.

    Ties go to the vector that comes first.

    Breakdown: n >= 2 f + 3.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, "Machine Learning with Adversaries: Byzantine
    Tolerant Gradient Descent", NeurIPS 2017, section 4.
    """

    offset: ClassVar[int] = 3

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        x.combine(np.eye(x.n)[int(np.argmin(scores(x.distances, f)))], out)


@aggregators.register("multi-krum")
@dataclass(frozen=True)
class MultiKrum(Aggregator):
    """The mean of the m vectors with the best Krum scores.

    Args:
        f: vectors that may be anything.
        m: how many are averaged; 0 takes n - f - 2, as large as the source's proof allows. (The package
            krum takes n - 2 f - 3 by default, ByzFL n - f.)

    Breakdown: n >= 2 f + 3, and m <= n - f - 2.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer, NeurIPS 2017, section 5; for the largest m
    Damaskinos, El Mhamdi, Guerraoui, Guirguis, Rouault, "AggregaThor", MLSys 2019.
    """

    offset: ClassVar[int] = 3
    m: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.m < 0:
            raise ConfigError(f"m must be at least 1, or 0 for n - f - 2, got {self.m}")

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        most = x.n - f - 2
        if self.m > most:
            raise ConfigError(
                f"multi-krum with f={f} averages at most n - f - 2 = {most} of {x.n}, got m={self.m}"
            )
        m = self.m or most
        best = np.argsort(scores(x.distances, f), kind="stable")[:m]
        weights = np.zeros(x.n)
        weights[best] = 1.0 / m
        x.combine(weights, out)


@aggregators.register("bulyan")
@dataclass(frozen=True)
class Bulyan(Aggregator):
    """Krum chooses n - 2 f vectors, one after the other; of these the mean around the median.

    Each choice is Krum's among the vectors that are left, with as many neighbours as these allow. In every
    coordinate the n - 4 f chosen values closest to their median are averaged.

    Breakdown: n >= 4 f + 3.

    Source: El Mhamdi, Guerraoui, Rouault, "The Hidden Vulnerability of Distributed Learning in
    Byzantium", ICML 2018, arXiv:1802.07927, section 4.
    """

    slope: ClassVar[int] = 4
    offset: ClassVar[int] = 3

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        left, chosen = list(range(x.n)), []
        for _ in range(x.n - 2 * f):
            distances = x.distances[np.ix_(left, left)]
            neighbours = max(1, len(left) - f - 2)  # at least one other decides, to the end
            few = len(left) - 2 - neighbours
            best = int(np.argmin(scores(distances, few))) if len(left) > 1 else 0
            chosen.append(left.pop(best))
        fits = 4 * f < len(chosen)  # the kernel drops fewer than half
        x.by_coordinate(kernels.mean_around_median if fits else _around_median, 2 * f, out, sorted(chosen))


def _around_median(vectors: Sequence[Any], f: int, out: Any) -> None:
    """``kernels.mean_around_median`` for n / 2 <= f < n, tile by tile; sums in double."""
    n, keep, step = len(vectors), len(vectors) - f, tile_of(out)
    for start in range(0, len(out), step):
        rows = [vector[start : start + step] for vector in vectors]
        s = _sorted(rows)
        centre = 0.5 * s[(n - 1) // 2] + 0.5 * s[n // 2]
        first = (centre - s[:f] > s[keep:] - centre).sum(0)
        out[start : start + step] = _mean_from(s, first, keep, out)


def _sorted(rows: Sequence[Any]) -> Any:
    """Values of one coordinate in a column, in order."""
    if is_on_gpu(rows[0]):
        import torch

        return torch.stack(list(rows)).sort(dim=0).values
    return np.sort(np.stack([_floats(row) for row in rows]), axis=0)


def _mean_from(s: Any, first: Any, keep: int, out: Any) -> Any:
    """The mean of ``keep`` values of every column, from that row on, as ``out`` takes it."""
    if is_on_gpu(out):
        total = 0.0 * s[0].double()
        for k in range(keep):  # one by one, as NumPy adds rows
            total += s.gather(0, (first + k)[None])[0]
        return total / keep
    mean = np.take_along_axis(s, first + np.arange(keep)[:, None], axis=0).mean(axis=0, dtype=np.float64)
    return mean if isinstance(out, np.ndarray) else out.new_tensor(mean)


def _floats(piece: Any) -> NDArray[np.floating[Any]]:
    """A piece as an array, bfloat16 widened."""
    if isinstance(piece, np.ndarray):
        return piece
    widened: NDArray[np.floating[Any]] = (piece.float() if piece.element_size() == 2 else piece).numpy()
    return widened
