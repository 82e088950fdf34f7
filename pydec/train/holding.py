"""Which rank has to hold what of a data set: now, and in the view of all ranks, which stake is at risk for.

What a rank owes while all live it owes while some are gone, too (see ``placement.py``); of fragments that is
so because the keeper holds both. So ranks that see different ranks dead agree on what is owed for sure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pydec.errors import StoreError
from pydec.store.challenges import Owed
from pydec.store.manifest import Manifest
from pydec.store.placement import Holder, Placement
from pydec.store.store import Store

_MOST_FRAGMENTS = 4096  # whose holder is remembered


class Holding:
    """The places of one data set's objects on the ranks of a job.

    Args:
        store: of this rank.
        manifest: of the data set.
        node: of every rank, see ``node_layout``.
        rank: this one.
        sources: ranks that had the data set before.
        random: draws what is challenged; nobody else should know it.

    Attributes:
        all: holders of the view of all ranks.
        now: those that are not gone.
    """

    def __init__(
        self,
        store: Store,
        manifest: Manifest,
        node: Sequence[int],
        rank: int,
        sources: Sequence[int],
        random: np.random.Generator | None = None,
    ) -> None:
        self._store, self._manifest, self._node, self._rank = store, manifest, node, rank
        self._sources, self._random = sources, random or np.random.default_rng()
        self.all = [Holder(name_of(rank), f"node {place}") for rank, place in enumerate(node)]
        self._whole = Placement(self.all, manifest.head.policy.fragments)
        self._gone: frozenset[int] = frozenset()
        self._spread: dict[bytes, int] = {}
        self.now, self._placement = self.all, self._whole

    def leave_out(self, gone: frozenset[int]) -> bool:
        """From now on these ranks hold nothing; whether that is news."""
        if gone == self._gone:
            return False
        self._gone = gone
        self._spread.clear()
        self.now = [holder for holder in self.all if rank_in(holder.peer) not in gone]
        self._placement = Placement(self.now, self._manifest.head.policy.fragments)
        return True

    def order(self, digest: bytes) -> list[int]:
        """Ranks to ask for an object: who has to hold it, near ones first, then who had everything."""
        if digest in self._spread:
            return [self._spread[digest], *self._sources]
        held = [rank_in(holder.peer) for holder in self._placement.of(digest)]
        held.sort(key=lambda rank: self._node[rank] != self._node[self._rank])
        return [*held, *self._sources]

    def look_up(self, names: Sequence[bytes]) -> None:
        """Have ``order`` know who holds the fragments of a chunk."""
        if len(self._spread) > _MOST_FRAGMENTS:
            self._spread.clear()
        for name, holder in zip(names, self._placement.spread(names), strict=False):
            self._spread[name] = rank_in(holder.peer)

    def mine(self, digest: bytes) -> bool:
        """Whether this rank has to hold a chunk of plain copies."""
        return any(rank_in(holder.peer) == self._rank for holder in self._placement.of(digest))

    def draw(self) -> Owed | None:
        """An object of this store that another rank owes, whoever else is gone."""
        shard = int(self._random.integers(len(self._manifest.shards)))
        try:
            names = self._store.layout(self._manifest, shard).index.objects
        except StoreError:
            return None
        if not names:
            return None
        name = names[int(self._random.integers(len(names)))]
        owing = [r for r in self._owing(name, shard) if r != self._rank and r not in self._gone]
        if not owing or not self._store.objects.has(name):
            return None
        return Owed(owing[int(self._random.integers(len(owing)))], name, shard)

    def owes(self, owed: Owed) -> bool:
        """Whether a rank owes an object, whoever else is gone."""
        if not 0 <= owed.shard < len(self._manifest.shards) or owed.peer in self._gone:
            return False
        try:
            names = self._store.layout(self._manifest, owed.shard).index.objects
        except StoreError:
            return False
        return owed.name in names and owed.peer in self._owing(owed.name, owed.shard)

    def _owing(self, name: bytes, shard: int) -> list[int]:
        """Ranks that have to hold an object of a shard in the view of all ranks."""
        if not self._manifest.head.policy.parity:
            return [rank_in(holder.peer) for holder in self._whole.of(name)]
        index = self._store.layout(self._manifest, shard).index
        row = next(names for names in index.fragment_names if name in names)
        holders = self._whole.spread(row)
        return [rank_in(holder.peer) for other, holder in zip(row, holders, strict=True) if other == name]


def rank_in(name: bytes) -> int:
    """The rank of a holder's identity."""
    return int(name.removeprefix(b"rank "))


def name_of(rank: int) -> bytes:
    """A holder's identity."""
    return b"rank %d" % rank
