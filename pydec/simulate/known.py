"""The rows of a graph for peers that all ask for those of the same few rounds."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import NamedTuple

from pydec.topology.base import Topology
from pydec.topology.schedule import sparse_round

_KEPT_ROWS = 1 << 18  # about 100 MB
_LEAST_KEPT = 4  # rounds: peers are rarely further apart


class _Round(NamedTuple):
    """One round's matrix as lists, by rows and by columns; see ``topology.schedule.SparseRound``."""

    own: list[float]
    starts: list[int]
    heard: list[int]
    values: list[float]
    told_from: list[int]
    told: list[int]


class Known(Topology):
    """A topology, each round of which is computed for all ranks when the first of them asks.

    Args:
        of: the topology.
    """

    def __init__(self, of: Topology) -> None:
        super().__init__(of.name, of.size, of.period, of.finite_time)
        self._of = of
        self._known: OrderedDict[int, _Round] = OrderedDict()
        self._most = max(_LEAST_KEPT, _KEPT_ROWS // of.size)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        found = self._known.get(slot) or self._learn(slot)
        here = slice(found.starts[rank], found.starts[rank + 1])
        return found.own[rank], dict(zip(found.heard[here], found.values[here], strict=True))

    def _listeners(self, rank: int, slot: int) -> list[int]:
        found = self._known.get(slot) or self._learn(slot)
        return found.told[found.told_from[rank] : found.told_from[rank + 1]]

    def _learn(self, slot: int) -> _Round:
        made = sparse_round(self._of, slot)
        columns = made.transposed
        found = _Round(
            made.own.tolist(), made.starts.tolist(), made.ranks.tolist(), made.values.tolist(),
            columns.starts.tolist(), columns.ranks.tolist(),
        )  # fmt: skip
        self._known[slot] = found
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return found

    @cached_property
    def degree(self) -> int:
        """Of the topology."""
        return self._of.degree

    @cached_property
    def messages_per_round(self) -> float:
        """Of the topology."""
        return self._of.messages_per_round

    @cached_property
    def is_symmetric(self) -> bool:
        """As the topology."""
        return self._of.is_symmetric

    @property
    def is_doubly_stochastic(self) -> bool:
        """As the topology."""
        return self._of.is_doubly_stochastic

    @property
    def identity(self) -> str:
        """Of the topology."""
        return self._of.identity

    def _gap(self) -> float:
        return self._of.spectral_gap()
