"""What a topology is: a periodic schedule of mixing matrices, a function of its size alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.registry import Registry

Matrix = NDArray[np.float64]

topologies: Registry[Topology] = Registry("topology", context=("size", "seed", "nodes"))

_DENSE_CACHE_BYTES = (
    64 << 20
)  # dense matrices are for analysis and tests; keep a period of a few hundred ranks


class Topology(ABC):
    """A schedule of mixing matrices over ``size`` ranks, doubly stochastic but where it says so.

    ``weights(t)[i, j]`` is the weight that rank i gives to what rank j sent in round t, so rank i
    receives from the j with a positive weight in its row and sends to those in its column.
    Subclasses supply the rows of one period; random schedules compute them from (seed, round) and
    have ``period`` 0. Holds no communicator, device or rank. A row costs O(degree); only
    ``weights`` builds anything of size x size.

    Args:
        name: specification that makes this topology, for messages.
        size: number of ranks, at least 1.
        period: rounds after which the schedule repeats.
        finite_time: rounds, counted from round 0, after which averaging is exact; None if never.
            Ignored for size 1, where nothing is to be averaged and it is 0.

    Raises:
        ConfigError: ``size`` is less than 1.
    """

    name: str
    """Specification that makes this topology."""
    size: int
    """Number of ranks."""
    period: int
    """Rounds after which the schedule repeats; 1 is a static graph, 0 never repeats."""
    finite_time: int | None
    """Rounds from round 0 after which every rank holds the exact mean of all, or None if never.

    ``weights(finite_time - 1) @ ... @ weights(0)`` is the averaging matrix up to rounding.
    """

    def __init__(self, name: str, size: int, period: int, finite_time: int | None) -> None:
        check_size(size)
        self.name = name
        self.size = size
        self.period = period
        self.finite_time = 0 if size == 1 else finite_time
        self._dense: OrderedDict[int, Matrix] = OrderedDict()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} of {self.size} ranks>"

    @abstractmethod
    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        """``row`` of a rank and a round that are known to be valid and reduced to one period."""

    @abstractmethod
    def _listeners(self, rank: int, slot: int) -> list[int]:
        """``listeners`` of a rank and a round that are known to be valid and reduced to one period."""

    @property
    @abstractmethod
    def degree(self) -> int:
        """Largest number of neighbours that any rank hears in any round."""

    @property
    @abstractmethod
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round: mean over the ranks and the rounds of one period."""

    @property
    @abstractmethod
    def is_symmetric(self) -> bool:
        """Whether every matrix is symmetric: whoever hears a rank is heard by it, with the same weight."""

    @abstractmethod
    def _gap(self) -> float:
        """``spectral_gap`` of a topology that is not exact in finite time."""

    def _smallest(self) -> float:
        """``smallest_eigenvalue`` of a symmetric matrix that never changes, size > 1."""
        return float(np.linalg.eigvalsh(self.weights(0))[0])

    @property
    def is_doubly_stochastic(self) -> bool:
        """Whether rows and columns sum to 1. If not, only columns do, and only push-sum finds the mean.

        Plain averaging on such a graph agrees on a weighted mean, with weights that nobody chose.
        """
        return True

    @property
    def is_static(self) -> bool:
        """Whether every round has the same matrix."""
        return self.period == 1

    @property
    def identity(self) -> str:
        """What tells it from others of the same name and size, such as its seed; empty if nothing does."""
        return ""

    def weights(self, round: int) -> Matrix:
        """Mixing matrix of that round, shape (size, size), float64, read-only."""
        slot = self._slot(round)
        matrix = self._dense.get(slot)
        if matrix is None:
            matrix = np.zeros((self.size, self.size))
            for rank in range(self.size):
                own, heard = self._row(rank, slot)
                matrix[rank, list(heard)] = list(heard.values())
                matrix[rank, rank] = own
            matrix.setflags(write=False)
            self._dense[slot] = matrix
            while len(self._dense) > 1 and len(self._dense) * matrix.nbytes > _DENSE_CACHE_BYTES:
                self._dense.popitem(last=False)
        return matrix

    def row(self, rank: int, round: int) -> tuple[float, dict[int, float]]:
        """(own weight, {rank heard: weight}) of one rank in one round, ranks in increasing order."""
        self._check_rank(rank)
        return self._row(rank, self._slot(round))

    def neighbors(self, rank: int, round: int) -> list[int]:
        """Ranks that ``rank`` receives from in that round, increasing, without itself."""
        self._check_rank(rank)
        return list(self._row(rank, self._slot(round))[1])

    def listeners(self, rank: int, round: int) -> list[int]:
        """Ranks that receive from ``rank`` in that round, increasing, without itself."""
        self._check_rank(rank)
        return self._listeners(rank, self._slot(round))

    def spectral_gap(self) -> float:
        """How fast disagreement decays: after one round it is about ``1 - gap`` of what it was.

        Static graph: 1 minus the second largest absolute eigenvalue of the matrix. Periodic
        schedule: ``1 - norm(P - J, 2) ** (1 / period)``, P the product over one period from round 0
        and J the averaging matrix; this is a rate per round, guaranteed over whole periods. Random
        schedule: ``1 - sqrt(c)``, c the expected factor of the squared distance to the mean per
        round. Exactly 1 for a schedule with a ``finite_time``, and for a single rank. If only the
        columns sum to 1, eigenvalues take the place of the norm: the rate at which push-sum agrees.
        """
        return 1.0 if self.finite_time is not None else self._gap()

    def smallest_eigenvalue(self) -> float | None:
        """Smallest eigenvalue of a static symmetric matrix; None for any other schedule.

        D2 diverges where it is -1/3 or less. Rounding leaves about 1e-15 to allow for.
        """
        if not (self.is_static and self.is_symmetric):
            return None
        return 1.0 if self.size == 1 else self._smallest()

    @cached_property
    def rounds_per_decade(self) -> float:
        """Rounds in which disagreement falls to a tenth, at the rate of ``spectral_gap``; 0 if exact."""
        gap = self.spectral_gap()
        if gap >= 1.0:
            return 0.0
        return float(np.log(0.1) / np.log1p(-gap)) if gap > 0.0 else float("inf")

    def _check_rank(self, rank: int) -> None:
        if not 0 <= rank < self.size:
            raise ValueError(
                f"rank must be in [0, {self.size}) for {self.name} of {self.size} ranks, got {rank}"
            )

    def _slot(self, round: int) -> int:
        if round < 0:
            raise ValueError(f"a round is counted from 0, got round={round}")
        return round % self.period if self.period else round


class SymmetricTopology(Topology):
    """A topology whose matrices are symmetric by construction: a rank is heard by whom it hears."""

    def _listeners(self, rank: int, slot: int) -> list[int]:
        return list(self._row(rank, slot)[1])

    @property
    def is_symmetric(self) -> bool:
        """True."""
        return True


def uniform_row(rank: int, others: Iterable[int]) -> tuple[float, dict[int, float]]:
    """Row with the same weight for a rank itself and for every other one; 1 / m is rounded once."""
    heard = sorted({*others} - {rank})
    weight = 1 / (1 + len(heard))
    return weight, dict.fromkeys(heard, weight)


def check_size(size: int) -> None:
    """Raise ConfigError unless ``size`` is an integer of at least 1."""
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
        raise ConfigError(f"size must be an integer, got {size!r}")
    if size < 1:
        raise ConfigError(f"a topology needs at least 1 rank, got size={size}")
