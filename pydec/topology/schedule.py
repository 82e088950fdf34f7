"""Schedules that are given by explicit rows, stored sparsely."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pydec.topology.base import Matrix, Topology
from pydec.topology.circulant import Circulant
from pydec.topology.members import Members
from pydec.topology.random_matching import RandomMatching
from pydec.topology.spectrum import DENSE_SIZES, ritz_values


@dataclass(frozen=True)
class SparseRound:
    """One mixing matrix in compressed rows: 8 * size + 12 bytes per message beyond the row starts.

    Args:
        own: weight that each rank gives itself, shape (size,), float64.
        starts: rank r hears ``ranks[starts[r]:starts[r + 1]]``; shape (size + 1,), int64.
        ranks: ranks heard, increasing within each row; shape (messages,), int32.
        values: their weights, shape (messages,), float64.
    """

    own: NDArray[np.float64]
    starts: NDArray[np.int64]
    ranks: NDArray[np.int32]
    values: NDArray[np.float64]

    @classmethod
    def from_rows(cls, own: Sequence[float], heard: Sequence[Mapping[int, float]]) -> SparseRound:
        """Compress rows: own weight and {rank heard: weight} of each rank."""
        starts = np.zeros(len(own) + 1, np.int64)
        np.cumsum([len(row) for row in heard], out=starts[1:])
        pairs = [pair for row in heard for pair in sorted(row.items())]
        ranks = np.array([rank for rank, _ in pairs], np.int32)
        return cls(
            np.array(own, np.float64), starts, ranks, np.array([value for _, value in pairs], np.float64)
        )

    @classmethod
    def from_entries(
        cls,
        own: NDArray[np.float64],
        rows: NDArray[np.int64],
        columns: NDArray[np.int64],
        values: NDArray[np.float64],
    ) -> SparseRound:
        """Compress entries (row, column, value) off the diagonal, each place at most once, in any order."""
        order = np.lexsort((columns, rows))
        starts = np.zeros(own.size + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=own.size), out=starts[1:])
        return cls(own, starts, columns[order].astype(np.int32), values[order])

    @classmethod
    def from_dense(cls, matrix: Matrix) -> SparseRound:
        """Compress a matrix of shape (size, size)."""
        rows, columns = np.nonzero(matrix)
        off = rows != columns
        rows, columns = rows[off], columns[off]
        return cls.from_entries(np.diag(matrix).copy(), rows, columns, matrix[rows, columns])

    def row(self, rank: int) -> tuple[float, dict[int, float]]:
        """(own weight, {rank heard: weight}) of one rank, ranks in increasing order."""
        here = slice(self.starts[rank], self.starts[rank + 1])
        return float(self.own[rank]), dict(
            zip(self.ranks[here].tolist(), self.values[here].tolist(), strict=True)
        )

    def apply(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The matrix times ``x``, shape (size,) or (size, d), float64."""
        column = (slice(None),) + (None,) * (x.ndim - 1)
        out = self.own[column] * x
        hears = np.flatnonzero(np.diff(self.starts))  # reduceat has no empty sums
        if hears.size:
            terms = np.take(x, self.ranks, axis=0)
            terms *= self.values[column]
            if hears.size < terms.shape[0]:
                terms = np.add.reduceat(terms, self.starts[hears], axis=0)
            if hears.size == out.shape[0]:
                out += terms
            else:
                out[hears] += terms
        return out

    @cached_property
    def degree(self) -> int:
        """Most ranks that one rank hears."""
        return int(np.diff(self.starts).max())

    @cached_property
    def transposed(self) -> SparseRound:
        """The same matrix by columns: ``transposed.row(r)`` names the ranks that hear r."""
        hearers = np.repeat(np.arange(self.own.size, dtype=np.int32), np.diff(self.starts))
        order = np.argsort(self.ranks, kind="stable")  # keeps the hearers of one rank increasing
        starts = np.zeros_like(self.starts)
        np.cumsum(np.bincount(self.ranks, minlength=self.own.size), out=starts[1:])
        return SparseRound(self.own, starts, hearers[order], self.values[order])

    @cached_property
    def is_symmetric(self) -> bool:
        """Whether the matrix equals its transpose, bit for bit."""
        other = self.transposed
        return all(
            np.array_equal(mine, theirs)
            for mine, theirs in (
                (self.starts, other.starts),
                (self.ranks, other.ranks),
                (self.values, other.values),
            )
        )


def sparse_round(topology: Topology, round: int) -> SparseRound:
    """One round of any topology in compressed rows; without a loop over the ranks where that can be."""
    if isinstance(topology, Schedule):
        return topology.sparse(round)
    if isinstance(topology, Circulant):
        offsets, weights = topology.offsets(round)
        n, k = topology.size, len(offsets) - 1
        heard = (np.arange(n)[:, None] + np.array(offsets[1:], np.int64)) % n
        order = np.argsort(heard, axis=1)
        ranks = np.take_along_axis(heard, order, axis=1).astype(np.int32).ravel()
        return SparseRound(
            np.full(n, weights[0]), np.arange(n + 1) * k, ranks, np.array(weights[1:])[order].ravel()
        )
    if isinstance(topology, Members):
        places, members = (
            sparse_round(topology.places, topology.place_round(round)),
            np.array(topology.members),
        )
        own = np.ones(topology.size)
        own[members] = places.own
        hearers = np.repeat(members, np.diff(places.starts))
        return SparseRound.from_entries(own, hearers, members[places.ranks], places.values)
    if isinstance(topology, RandomMatching):
        partners = topology.partners(round)
        paired = np.flatnonzero(partners != np.arange(topology.size))
        own = np.ones(topology.size)
        own[paired] = 0.5
        return SparseRound.from_entries(own, paired, partners[paired], np.full(paired.size, 0.5))
    rows = [topology.row(rank, round) for rank in range(topology.size)]
    return SparseRound.from_rows([own for own, _ in rows], [heard for _, heard in rows])


class Schedule(Topology):
    """A period of explicit rounds.

    Args:
        name: specification that makes this topology.
        rounds: at least one, all of the same size.
        finite_time: see ``Topology``.
        doubly_stochastic: whether rows sum to 1, too, and not only columns.
    """

    def __init__(
        self,
        name: str,
        rounds: Sequence[SparseRound],
        finite_time: int | None = None,
        *,
        doubly_stochastic: bool = True,
    ) -> None:
        super().__init__(name, rounds[0].own.size, len(rounds), finite_time)
        self._rounds = tuple(rounds)
        self._doubly = doubly_stochastic

    def sparse(self, round: int) -> SparseRound:
        """That round's matrix."""
        return self._rounds[self._slot(round)]

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        return self._rounds[slot].row(rank)

    def _listeners(self, rank: int, slot: int) -> list[int]:
        return list(self._rounds[slot].transposed.row(rank)[1])

    @property
    def degree(self) -> int:
        """Largest number of neighbours that any rank hears in any round."""
        return max(round.degree for round in self._rounds)

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, mean over the ranks and the rounds of one period."""
        return sum(round.ranks.size for round in self._rounds) / (self.size * self.period)

    @property
    def is_symmetric(self) -> bool:
        """Whether every round's matrix is symmetric."""
        return all(round.is_symmetric for round in self._rounds)

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether rows sum to 1, too, and not only columns."""
        return self._doubly

    @cached_property
    def identity(self) -> str:
        """A digest of all weights."""
        digest = hashlib.blake2b(digest_size=4)
        for round in self._rounds:
            for part in (round.own, round.starts, round.ranks, round.values):
                digest.update(np.ascontiguousarray(part).view(np.uint8).data)
        return f"weights {digest.hexdigest()}"

    def _gap(self) -> float:
        if self.size > DENSE_SIZES:
            return self._sparse_gap()
        product: Matrix = np.eye(self.size)
        for round in range(self.period):
            product = self.weights(round) @ product
        if self.period > 1 and self._doubly:
            return 1.0 - math.pow(np.linalg.norm(product - 1.0 / self.size, 2), 1.0 / self.period)
        symmetric = self.is_symmetric and self.period == 1
        values = np.linalg.eigvalsh(product) if symmetric else np.linalg.eigvals(product)
        return 1.0 - math.pow(float(np.sort(np.abs(values))[-2]), 1.0 / self.period)

    def _sparse_gap(self) -> float:
        def product(x: NDArray[np.float64]) -> NDArray[np.float64]:
            for round in self._rounds:
                x = round.apply(x)
            return x

        def squared(x: NDArray[np.float64]) -> NDArray[np.float64]:
            x = product(x)
            for round in reversed(self._rounds):
                x = round.transposed.apply(x)
            return x

        if self.period > 1 and self._doubly:
            norm = math.sqrt(float(np.abs(ritz_values(squared, self.size, symmetric=True)).max()))
        else:
            symmetric = self.is_symmetric and self.period == 1
            norm = float(np.abs(ritz_values(product, self.size, symmetric=symmetric)).max())
        return 1.0 - math.pow(norm, 1.0 / self.period)

    def _smallest(self) -> float:
        if self.size > DENSE_SIZES:
            return float(ritz_values(self._rounds[0].apply, self.size, symmetric=True).real.min())
        return super()._smallest()
