"""Get enough of some objects from several peers at the same time: a state machine over an exchange."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from pydec.store.exchange import LATE_S, Exchange
from pydec.store.requests import Request

_ASKED = 2  # peers for each object, times the number of objects


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

    @property
    def done(self) -> bool:
        """Whether there are enough, or no more to be had."""
        return len(self.found) >= self._count or not (self._asked or self._left)

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
        while self._left and len(self.found) + len(self._asked) - late < self._count:
            moved, number = True, self._left.popleft()
            limit = _ASKED * len(self._names)
            self._asked[number] = self._exchange.want(self._names[number], limit=limit), now
        return moved
