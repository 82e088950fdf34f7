"""Hold what a view asks of this peer: after every change of it, get what is missing, within a bandwidth.

Each peer computes from manifests and view alone what it owes; nobody coordinates. What it owes no longer
stays, so that a view that changes twice finds what was there before, unless a ``Dropper`` lets it go.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydec.errors import ChunkError, StoreError
from pydec.store.dropping import Dropper
from pydec.store.exchange import Exchange
from pydec.store.link import Link
from pydec.store.manifest import Manifest
from pydec.store.placement import Holder, Placement
from pydec.store.remaking import Remaking
from pydec.store.requests import Request
from pydec.store.shard import Layout
from pydec.store.store import Store, layout_of

_AT_ONCE = 4  # objects that are on their way
_ASKED = 2  # peers for each fragment of a chunk, before one that nobody gives is made again
_MOST_WANTED = 100_000  # before more shards are looked at
RETRY_S = 60.0
"""After which what nobody gave, or the disk did not take, is wanted again."""


@dataclass(frozen=True)
class Standing:
    """How far a peer holds what it owes.

    Args:
        owed, here: objects, as far as the indices here say.
        missing_bytes: of those that are not here.
        lost: objects that no peer gave when asked last, or that the disk did not take.
        seconds: to have the rest at the bandwidth allowed; infinite if none is.
    """

    owed: int
    here: int
    missing_bytes: int
    lost: int
    seconds: float


class Keeper:
    """One peer's part in keeping data sets; ``turn`` moves it on and never waits.

    Args:
        exchange: gets objects; ``turn`` here does not turn it. link: whose clock counts. store: where they
        are put. manifests: of the data sets to hold. me: this peer's identity in the view. bytes_per_s:
        bandwidth that may be used. scrub_bytes_per_s: how much of what it holds this peer reads again and
        verifies, round and round, once it has all; 0: nothing. dropper: lets go of what is not owed, once all
        that is owed is here. rank_of: where in the job a holder is, for the dropper.

    Attributes:
        fetched, fetched_bytes: objects that have come since the start.
        remade: fragments that were made again from others, as nobody had them.
        scrubbed, damaged: objects that were verified again, and those that were found damaged or gone.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: Link,
        store: Store,
        manifests: Sequence[Manifest],
        me: bytes,
        bytes_per_s: float = math.inf,
        scrub_bytes_per_s: float = 0.0,
        dropper: Dropper | None = None,
        rank_of: Callable[[bytes], int] = lambda peer: -1,
    ) -> None:
        if not bytes_per_s > 0 or not 0 <= scrub_bytes_per_s < math.inf:
            raise ValueError(
                f"bytes_per_s must be above 0 and scrub_bytes_per_s finite, got {bytes_per_s} and "
                f"{scrub_bytes_per_s}"
            )
        self._exchange, self._link, self._store, self._me = exchange, link, store, me
        self._manifests, self._rate = list(manifests), bytes_per_s
        self._holders: list[Holder] = []
        self._always: list[Holder] = []
        self._placements: dict[int, Placement] = {}  # of this view, by replicas
        self._todo: deque[tuple[Manifest, int]] = deque()  # shards not yet looked at under this view
        self._wanted: deque[tuple[bytes, int]] = deque()
        self._lost: list[tuple[bytes, int]] = []
        self._unlooked: list[tuple[Manifest, int]] = []  # shards whose index is among these
        self._waiting: list[tuple[Request, int]] = []
        self._index: tuple[Request, Manifest, int] | None = None
        self._coded: dict[bytes, tuple[Manifest, int, int]] = {}  # chunk of each fragment that is owed
        self._unmade: deque[tuple[bytes, int]] = deque()  # fragments that nobody has
        self._remaking: Remaking | None = None  # the first of them
        self._owed = self._here = 0
        self._dropper, self._rank_of = dropper, rank_of
        self._spare: dict[bytes, tuple[int, ...]] | None = None  # with who owes them; None: handed over
        self._room, self._at_s, self._again_s = 0.0, link.now(), 0.0
        self._scrub_rate, self._scrub_room = scrub_bytes_per_s, 0.0
        self._held: deque[tuple[bytes, int]] = deque()  # what is owed, the next to be verified first
        self.fetched = self.fetched_bytes = self.scrubbed = self.damaged = self.remade = 0

    def enter(self, holders: Sequence[Holder], always: Sequence[Holder] = ()) -> None:
        """A view begins: look at every shard again, and ask again for what nobody had.

        Args:
            holders: the peers of the view.
            always: peers of another view, whose fragments this peer holds as well; of copies it holds them
                anyhow if all of this view are in that one.
        """
        self._holders, self._placements = list(holders), {}
        self._always = list(always) if len(always) > len(holders) else []
        self._todo = deque((m, number) for m in self._manifests for number in range(len(m.shards)))
        self._wanted.clear()
        self._lost.clear()
        self._unlooked.clear()
        self._held.clear()
        self._coded.clear()
        self._unmade.clear()
        self._remaking = None
        self._owed = self._here = 0
        if self._dropper is not None:
            self._dropper.stop()
            self._spare = {}

    def owes_fragment(self, name: bytes) -> bool:
        """Whether a fragment is among those to hold, as far as this view's shards were looked at."""
        return name in self._coded

    @property
    def standing(self) -> Standing:
        """How far this peer is; complete once ``done``."""
        waiting = ((request.digest, size) for request, size in self._waiting)
        missing = [*self._wanted, *self._unmade, *self._lost, *waiting]
        n_bytes = sum(size for _, size in missing)
        return Standing(self._owed, self._here, n_bytes, len(self._lost), n_bytes / self._rate)

    @property
    def done(self) -> bool:
        """Whether there is nothing left to get, or nobody who has it."""
        return not (self._todo or self._wanted or self._waiting or self._unmade or self._index)

    def turn(self) -> bool:
        """Take what has come, and ask for more; whether anything moved."""
        now = self._link.now()
        if math.isfinite(self._rate):
            self._room = min(self._room + (now - self._at_s) * self._rate, self._rate)
        self._scrub_room = min(
            self._scrub_room + (now - self._at_s) * self._scrub_rate, max(self._scrub_rate, 1.0)
        )
        self._at_s = now
        moved = self._taken()
        if self._lost and self.done and now >= self._again_s:
            self._again()
        if self._todo and len(self._wanted) < _MOST_WANTED:
            moved |= self._look()
        while (
            self._wanted
            and len(self._waiting) < _AT_ONCE
            and (self._room > 0 or not math.isfinite(self._rate))
        ):
            name, size = self._wanted.popleft()
            if self._store.objects.has(name):  # it came another way
                self._here += 1
                continue
            self._room -= size
            limit = _ASKED * self._coded[name][0].head.policy.fragments if name in self._coded else None
            self._waiting.append((self._exchange.want(name, limit=limit), size))
            moved = True
        if self._unmade and (self._room > 0 or not math.isfinite(self._rate)):
            moved |= self._remake()
        if self._scrub_rate and self.done and self._held and self._scrub_room > 0:
            self._scrub()
        if self._dropper is not None:
            moved |= self._drop(self._dropper)
        return moved

    def _lose(self, name: bytes, size: int) -> None:
        """Note what is not to be had, and want it again after a while."""
        self._lost.append((name, size))
        self._again_s = self._at_s + RETRY_S

    def _again(self) -> None:
        """Want what is lost once more, and look at the shards whose index was not to be had."""
        indices = {manifest.shards[number].index for manifest, number in self._unlooked}
        self._wanted.extend(item for item in self._lost if item[0] not in indices)
        self._lost.clear()
        self._owed -= len(self._unlooked)
        self._todo.extend(self._unlooked)
        self._unlooked.clear()

    def _drop(self, dropper: Dropper) -> bool:
        """Let go of what is not owed, once all that is owed is here; whether anything moved."""
        if self._spare is not None and self.done and not self._lost:
            for name, _ in self._held:  # what is owed
                self._spare.pop(name, None)
            dropper.begin(list(self._spare.items()))
            self._spare = None
        return dropper.turn()

    def _scrub(self) -> None:
        """Verify the next object that is owed, and want it if it is damaged or gone."""
        name, size = self._held[0]
        self._held.rotate(-1)
        self._scrub_room -= size
        self.scrubbed += 1
        try:
            self._store.objects.get(name)
        except ChunkError:
            if (name, size) not in self._lost:
                self.damaged += 1
                self._here -= 1
                self._wanted.append((name, size))

    def _taken(self) -> bool:
        ended = [item for item in self._waiting if item[0].settled]
        for request, size in ended:
            self._waiting.remove((request, size))
            if request.data is None and request.digest in self._coded:
                self._unmade.append((request.digest, size))
            elif request.data is None or _refused(request):
                self._lose(request.digest, size)
            else:
                self._here += 1
                self.fetched += 1
                self.fetched_bytes += size
        return bool(ended)

    def _remake(self) -> bool:
        """Move the first fragment on that has to be made again."""
        name, size = self._unmade[0]
        if self._remaking is None:
            manifest, number, row = self._coded[name]
            try:
                layout = self._store.layout(manifest, number)
            except ChunkError:  # its index was damaged since: it is looked at again
                self._todo.append((manifest, number))
                self._unmade.popleft()
                return True
            self._remaking = Remaking(self._exchange, self._store, layout, row, name)
            self._room -= self._remaking.n_bytes
        moved = self._remaking.turn()
        if self._remaking.done:
            self._unmade.popleft()
            self._here += self._remaking.made
            self.remade += self._remaking.made
            if not self._remaking.made:
                self._lose(name, size)
            self._remaking = None
        return moved

    def _look(self) -> bool:
        """See which chunks of the next shard are owed; its index comes first, which every peer holds."""
        manifest, number = self._todo[0]
        shard = manifest.shards[number]
        if self._index is not None:
            request, of, which = self._index
            if not request.settled:
                return False
            self._index = None
            if (request.data is None or _refused(request)) and (of, which) == (manifest, number):
                self._unlooked.append(self._todo.popleft())
                self._owed += 1
                self._lose(shard.index, shard.index_bytes)
                return True
        try:
            data = self._store.objects.get(shard.index)
        except StoreError:
            self._index = self._exchange.want(shard.index), manifest, number
            return True
        self._todo.popleft()
        layout = layout_of(manifest, shard, data)
        replicas = manifest.head.policy.replicas
        if replicas not in self._placements:
            self._placements[replicas] = Placement(self._holders, replicas)
        placement = self._placements[replicas]
        sizes = dict(zip(layout.index.objects, layout.index.object_lengths(layout.code), strict=True))
        if layout.code is None:
            places = dict(zip(sizes, placement.of_all(list(sizes)), strict=True))
        else:
            places = _places_of_fragments(placement, layout)
            if self._always:
                whole = _places_of_fragments(Placement(self._always, replicas), layout)
                me = [holder for holder in self._always if holder.peer == self._me]
                for name, held in whole.items():
                    if me and me[0] in held and me[0] not in places[name]:
                        places[name] = [*places[name], *me]
        owed = [name for name, held in places.items() if any(h.peer == self._me for h in held)]
        if layout.code is not None:
            mine = {*owed}
            for row, names in enumerate(layout.index.fragment_names):
                self._coded.update({name: (manifest, number, row) for name in names if name in mine})
        self._owed += 1 + len(owed)
        missing = [name for name in owed if not self._store.objects.has(name)]
        self._here += 1 + len(owed) - len(missing)
        self._held.append((shard.index, shard.index_bytes))
        self._held.extend((name, sizes[name]) for name in owed)
        self._wanted.extend((name, sizes[name]) for name in missing)
        if self._spare is not None:
            for name, held in places.items():
                if self._store.objects.has(name):
                    ranks = {*self._spare.get(name, ()), *(self._rank_of(holder.peer) for holder in held)}
                    self._spare[name] = tuple(sorted(ranks))
        return True


def _refused(request: Request) -> bool:
    """Whether an object came and the disk did not take it."""
    return request.kept is not None and request.kept.exception() is not None


def _places_of_fragments(placement: Placement, layout: Layout) -> dict[bytes, list[Holder]]:
    """Who has to hold each fragment of a shard."""
    places: dict[bytes, list[Holder]] = {}
    for names in layout.index.fragment_names:
        for name, holder in zip(names, placement.spread(names), strict=False):
            places.setdefault(name, []).append(holder)
    return places
