"""Now and then ask another peer to prove that it holds what it owes; a quorum tells who does not.

The challenger has the object itself: it draws a range and a nonce, and compares the answer, BLAKE3 of that
range keyed by the nonce, with its own. Nobody can answer who has not the bytes at that moment.

A challenge that is missed is made again for the same object, ``SPACE_S`` later; who held the object and lost
it has that time to get it back, from the challenger too. After ``STRIKES`` misses the challenger signs a
report, and tells all others. They do not believe it: each challenges the accused for that object itself, and
gets the object first if it lacks it. What a quorum has signed takes the stake (``Jury``).

A miss is a wrong proof, or word that the object is not here. Silence is one only from who answered something
else that this peer asked for later: it got the challenge, and lives. Who is dead, hung, cut off or slow
misses nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pydec.errors import StoreError
from pydec.store.exchange import DEADLINE_S, Exchange
from pydec.store.link import Link
from pydec.store.messages import NONCE_BYTES, Kind, Message
from pydec.store.objects import Objects
from pydec.store.possession import possession
from pydec.store.requests import Request

RANGE_BYTES = 1 << 16
STRIKES = 3
"""Challenges for one object that are missed before a peer signs that another one does not hold it."""
SPACE_S = 30.0
"""Between a challenge that was missed and the next one for the same object."""
_REPEAT_S = 5.0  # a challenge is sent again meanwhile: it may have been lost
_MOST_CASES = 8  # of one peer at a time
_TOLD_S, _MOST_TOLD = 10.0, 16  # reports of one peer that are looked at in so many seconds


@dataclass(frozen=True)
class Owed:
    """Peer ``peer`` has to hold the object ``name``, which is of shard ``shard``."""

    peer: int
    name: bytes
    shard: int


class Jury(Protocol):
    """Decides who loses its stake; the ledger, or nobody."""

    def sign(self, owed: Owed) -> bytes | None:
        """This peer's share of a report, ``messages.SHARE_BYTES`` long; None if it has no vote."""

    def hear(self, signer: int, owed: Owed, share: bytes) -> bool:
        """Take the share of another peer; whether it is one."""


@dataclass
class _Case:
    """An object that a peer has to prove until it does."""

    owed: Owed
    joined: bool  # because another peer has told of it
    at_s: float
    misses: int = 0
    keys: list[tuple[int, int]] = field(default_factory=list)
    question: tuple[int, int, bytes] = (0, 0, b"")  # offset, length, nonce
    expected: bytes = b""
    asked_s: float = 0.0
    data: Request | None = None


class Challenges:
    """One peer's part; ``turn`` moves it on and never waits.

    Args:
        exchange: asks; ``turn`` here does not turn it. link: whose clock counts. objects: what is here.
        draw: an object that another peer owes and that is here; None if there is none to ask for.
        every_s: time between two challenges.
        random: gives so many bytes that nobody knows before.
        jury: takes reports; None: misses are counted alone.
        owes: whether what another peer's report names is owed.

    Attributes:
        asked, proved: challenges that were made, and those that were met.
        missed: how often each rank did not, see the head of this module.
        silent: how often each rank said nothing in time and may be slow.
        reported: how often each rank was reported by this one.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: Link,
        objects: Objects,
        draw: Callable[[], Owed | None],
        every_s: float,
        random: Callable[[int], bytes] = os.urandom,
        jury: Jury | None = None,
        owes: Callable[[Owed], bool] = lambda owed: False,
    ) -> None:
        self._exchange, self._link, self._objects, self._draw = exchange, link, objects, draw
        self._every_s, self._random, self._jury, self._owes = every_s, random, jury, owes
        self._next_s = link.now() + every_s
        self._cases: list[_Case] = []
        self._claims: dict[int, Owed] = {}  # by who told of it, its last
        self._told, self._told_s = Counter[int](), 0.0
        self.asked = self.proved = 0
        self.missed, self.silent, self.reported = Counter[int](), Counter[int](), Counter[int]()

    def turn(self) -> bool:
        """Look at answers and reports, and make the challenges that are due; whether anything moved."""
        now, lost, moved = self._link.now(), self._link.lost(), self._heard()
        for case in list(self._cases):
            if case.owed.peer in lost:
                self._end(case)
            elif case.keys:
                moved |= self._judge(case, now)
            elif now >= case.at_s:
                moved |= self._ask(case, now)
        if now < self._next_s:
            return moved
        self._next_s = now + self._every_s
        for new in (self._joining(now), self._drawn(now)):
            if new is not None:
                self._cases.append(new)
                self._ask(new, now)
        return True

    def _drawn(self, now: float) -> _Case | None:
        owed = self._draw()
        if owed is None or any(c.owed.peer == owed.peer and not c.joined for c in self._cases):
            return None  # what it owes next comes once it has proved what it owes now
        return _Case(owed, False, now)

    def _heard(self) -> bool:
        """Take reports of others."""
        moved = False
        if self._link.now() - self._told_s > _TOLD_S:
            self._told_s = self._link.now()
            self._told.clear()
        while self._exchange.reports:
            signer, message = self._exchange.reports.popleft()
            owed, moved = Owed(message.request, message.digest, message.offset), True
            self._told[signer] += 1
            if (
                self._jury is not None
                and self._told[signer] <= _MOST_TOLD
                and owed.peer not in (self._link.rank, signer)
                and self._owes(owed)
                and self._jury.hear(signer, owed, message.body)
            ):
                self._claims[signer] = owed
        return moved

    def _joining(self, now: float) -> _Case | None:
        """The next of the objects that others have told of: the smallest name first, so that all agree."""
        for signer, owed in sorted(self._claims.items(), key=lambda claim: claim[1].name):
            cases = [case for case in self._cases if case.owed.peer == owed.peer]
            same = next((case for case in cases if case.owed == owed), None)
            if same is not None or owed.peer in self._link.lost():
                del self._claims[signer]
            elif len(cases) < _MOST_CASES and not any(c.joined and c.misses < STRIKES for c in cases):
                del self._claims[signer]
                return _Case(owed, True, now)
        return None

    def _ask(self, case: _Case, now: float) -> bool:
        """Make a challenge; whether anything moved."""
        data = self._data(case)
        if data is None:
            return False
        if not data:
            self._end(case)  # nobody can say what is right
            return True
        size = len(data)
        length = min(size, RANGE_BYTES)
        offset = int.from_bytes(self._random(8), "little") % (size - length + 1)
        nonce = self._random(NONCE_BYTES)
        case.question, case.expected = (offset, length, nonce), possession(data, offset, length, nonce)
        case.asked_s = now
        self.asked += 1
        self._send(case)
        return True

    def _data(self, case: _Case) -> bytes | None:
        """The object; empty if it is not to be had, None while it is under way."""
        if case.data is None:
            try:
                return self._objects.get(case.owed.name)
            except StoreError:
                if not case.joined:
                    return b""
                case.data = self._exchange.want(case.owed.name)
        return (case.data.data or b"") if case.data.done else None

    def _send(self, case: _Case) -> None:
        case.keys.append(self._exchange.challenge(case.owed.peer, case.owed.name, *case.question))

    def _judge(self, case: _Case, now: float) -> bool:
        """Look at what a peer said; whether the challenge is over."""
        peer, late = case.owed.peer, now - case.asked_s
        said = [answer for key in case.keys if (answer := self._exchange.proof(key)) is not None]
        if said:
            if case.expected in said:
                self.proved += 1
                self._end(case)
                return True
            self._miss(case, now)
        elif late <= DEADLINE_S:
            if late >= _REPEAT_S * len(case.keys):
                self._send(case)
            return False
        elif self._exchange.answered[peer] > case.keys[0][1]:
            self._miss(case, now)
        else:
            self.silent[peer] += 1
            self._later(case, now)
        return True

    def _miss(self, case: _Case, now: float) -> None:
        owed = case.owed
        self.missed[owed.peer] += 1
        case.misses += 1
        self._later(case, now)
        if case.misses < STRIKES:
            return
        share = None if self._jury is None else self._jury.sign(owed)
        if share is None:
            self._end(case)
            return
        self.reported[owed.peer] += 1
        lost = {*self._link.lost(), self._link.rank, owed.peer}
        message = Message(Kind.REPORT, owed.peer, owed.name, owed.shard, body=share)
        for peer in range(self._link.size):
            if peer not in lost:
                self._exchange.tell(peer, message)

    def _later(self, case: _Case, now: float) -> None:
        """Ask again after a while; also who was reported, so that a report that was lost is made again."""
        self._forget(case)
        case.at_s = now + SPACE_S

    def _end(self, case: _Case) -> None:
        if case.keys and case.owed.peer in self._link.lost():
            self.asked -= 1  # the dead owe nothing
        self._forget(case)
        self._cases.remove(case)

    def _forget(self, case: _Case) -> None:
        for key in case.keys:
            self._exchange.forget(key)
        case.keys.clear()
