"""Let go of objects that a peer no longer owes, once all who owe them have proved that they hold them.

After a view change a peer first gets what it lacks (``keeper.py``). Then it asks each holder of an object
that it does not owe for a proof over all bytes, under a nonce that it has just drawn, and removes its own
copy when all of them have given it. From the first of these questions on it proves nothing about that object
to others: of peers that let go of the same object at the same time, each relies on ones that began later or
not at all, so that the last of them keeps its copy, whatever views they are in.

What other data sets of the store need stays, and so does everything while data is added or removed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pydec.errors import ChunkError, StoreError
from pydec.store.exchange import DEADLINE_S, Exchange
from pydec.store.journal import unfinished
from pydec.store.link import Link
from pydec.store.manifest import Shard
from pydec.store.messages import NONCE_BYTES
from pydec.store.possession import possession
from pydec.store.store import Store

RETRY_S = 5.0
"""After which holders that had no proof are asked again: they may have been getting the object."""
_AT_ONCE = 16  # objects that holders are asked about

Spare = tuple[bytes, tuple[int, ...]]
"""An object that is not owed, and the ranks that owe it."""


@dataclass
class _Asked:
    """An object that is to go, and what its holders have said."""

    spare: Spare
    n_bytes: int
    proof: bytes
    open: set[tuple[int, int]]
    since_s: float = 0.0


@dataclass
class _Needed:
    """What other data sets need, and for which ones that was found."""

    of: object = None
    names: set[bytes] = field(default_factory=set)


class Dropper:
    """One peer's part; ``turn`` moves it on and never waits.

    Args:
        exchange: asks holders; ``turn`` here does not turn it.
        link: whose clock counts.
        store: of this peer alone.
        mine: roots of the data sets whose objects may go.
        nonce: draws 32 bytes that nobody can foresee.

    Attributes:
        dropped, dropped_bytes: since the start.
        unproved: how often a holder gave no proof, or a wrong one.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: Link,
        store: Store,
        mine: Iterable[bytes],
        nonce: Callable[[], bytes] = lambda: os.urandom(NONCE_BYTES),
    ) -> None:
        self._exchange, self._link, self._store = exchange, link, store
        self._mine, self._nonce = frozenset(mine), nonce
        self._todo: deque[tuple[Spare, float]] = deque()  # with the time before which it is left alone
        self._asked: list[_Asked] = []
        self._proved: list[_Asked] = []
        self._needed = _Needed()
        self.dropped = self.dropped_bytes = self.unproved = 0

    def begin(self, spares: Sequence[Spare]) -> None:
        """This peer has all that it owes in this view: let go of these objects."""
        self.stop()
        self._todo.extend((spare, 0.0) for spare in spares if spare[1])

    def stop(self) -> None:
        """The view has ended: what was proved in it no longer counts."""
        for item in (*self._asked, *self._proved):
            self._release(item)
        self._asked, self._proved = [], []
        self._todo.clear()

    @property
    def done(self) -> bool:
        """Whether nothing is left that could go."""
        return not (self._todo or self._asked or self._proved)

    def turn(self) -> bool:
        """Take answers, remove what was proved, ask on; whether anything moved."""
        moved = self._hear()
        if self._proved and (len(self._proved) >= _AT_ONCE or not self._asked):
            moved |= self._remove()
        while self._todo and len(self._asked) + len(self._proved) < _AT_ONCE:
            if self._todo[0][1] > self._link.now():
                break
            self._ask(self._todo.popleft()[0])
            moved = True
        return moved

    def _ask(self, spare: Spare) -> None:
        name, holders = spare
        try:
            data = self._store.objects.get(name)
        except ChunkError:
            return  # gone, or damaged and moved away
        nonce, size = self._nonce(), len(data)
        self._exchange.withheld.add(name)
        asked = {self._exchange.challenge(rank, name, 0, size, nonce) for rank in holders}
        self._asked.append(_Asked(spare, size, possession(data, 0, size, nonce), asked, self._link.now()))

    def _hear(self) -> bool:
        moved = False
        for item in list(self._asked):
            wrong = self._link.now() - item.since_s > DEADLINE_S
            for key in list(item.open):
                answer = self._exchange.proof(key)
                if answer is not None:
                    item.open.remove(key)
                    wrong |= answer != item.proof
            if wrong:
                self.unproved += 1
                self._later(item)
            elif not item.open:
                self._proved.append(item)
            if wrong or not item.open:
                self._asked.remove(item)
                moved = True
        return moved

    def _remove(self) -> bool:
        """Remove what all holders have proved, unless something else needs it."""
        items, self._proved = self._proved, []
        try:
            with self._store.lock(), self._store.alone():
                needed = self._others()
                for item in items:
                    if item.spare[0] not in needed:
                        self._store.objects.remove(item.spare[0])
                        self.dropped += 1
                        self.dropped_bytes += item.n_bytes
        except StoreError:  # data is being added or removed, or a manifest is damaged
            for item in items:
                self._later(item)
            return False
        for item in items:
            self._release(item)
        return True

    def _others(self) -> set[bytes]:
        """Names of the objects that other data sets and interrupted adds need; who calls holds the lock.

        Raises:
            StoreError: a manifest or index is damaged, so that nobody can say.
        """
        roots = [root for root in self._store.roots() if root not in self._mine]
        begun: list[Shard] = [shard for shards in unfinished(self._store).values() for shard in shards]
        if self._needed.of != (roots, begun):
            names = self._store.named(iter(begun), roots)
            self._needed = _Needed((roots, begun), names)
        return self._needed.names

    def _later(self, item: _Asked) -> None:
        self._release(item)
        self._todo.append((item.spare, self._link.now() + RETRY_S))

    def _release(self, item: _Asked) -> None:
        self._exchange.withheld.discard(item.spare[0])
        for key in item.open:
            self._exchange.forget(key)
