"""Get enough of some objects from several peers at the same time: a state machine over an exchange.

First the likely holders are asked, so that a fragment that nobody has costs little; then, if too few have
come, all peers: when data are new, one peer that owes none of them may be the only one that has them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from pydec.store.exchange import LATE_S, Exchange
from pydec.store.requests import Request

_ASKED = 2  # likely holders of each object, times the number of objects


class Gathering:
    """The fragments of a chunk on their way: as many at once as are missing, one more for each that is late.

    Args:
        exchange: gets them; ``turn`` here does not turn it.
        names: of all of them.
        found: those that are here, by their positions in ``names``.
        count: how many are needed.
        without: positions that are not asked for.

    Attributes:
        found: those that are here now.
    """

    def __init__(
        self,
        exchange: Exchange,
        names: Sequence[bytes],
        found: Mapping[int, bytes],
        count: int,
        without: Sequence[int] = (),
    ) -> None:
        self.found = dict(found)
        self._exchange, self._names, self._count = exchange, names, count
        self._left = deque(n for n in range(len(names)) if n not in self.found and n not in without)
        self._asked: dict[int, tuple[Request, float]] = {}
        self._limit: int | None = _ASKED * len(names)
        self._missed: list[int] = []

    @property
    def done(self) -> bool:
        """Whether there are enough, or no more to be had."""
        return len(self.found) >= self._count or not (self._asked or self._left or self._missed)

    def turn(self) -> bool:
        """Take what has come, and ask for more; whether anything moved."""
        moved, now, late = False, self._exchange.now(), 0
        for number, (request, since_s) in list(self._asked.items()):
            late += now - since_s > LATE_S
            if request.done:
                moved = True
                late -= now - since_s > LATE_S
                del self._asked[number]
                if request.data is not None:
                    self.found[number] = request.data
                elif self._limit is not None:
                    self._missed.append(number)
        if self._missed and not (self._asked or self._left):
            self._limit = None
            self._left.extend(self._missed)
            self._missed.clear()
        while self._left and len(self.found) + len(self._asked) - late < self._count:
            moved, number = True, self._left.popleft()
            self._asked[number] = self._exchange.want(self._names[number], limit=self._limit), now
        return moved
