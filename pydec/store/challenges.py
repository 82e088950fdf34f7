"""Now and then ask another peer to prove that it holds what it owes; count who does not.

The challenger has the object itself: it draws a range and a nonce, and compares the answer, BLAKE3 of that
range keyed by the nonce, with its own. Nobody can answer who has not the bytes at that moment.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from pydec.errors import StoreError
from pydec.store.exchange import DEADLINE_S, Exchange, Link, possession
from pydec.store.messages import NONCE_BYTES
from pydec.store.objects import Objects

RANGE_BYTES = 1 << 16

Draw = Callable[[], tuple[int, bytes] | None]
"""A peer that owes an object, and the object's name; None if there is none to ask."""


class Challenges:
    """One peer's part; ``turn`` moves it on and never waits.

    Args:
        exchange: asks; ``turn`` here does not turn it. link: whose clock counts. objects: what is here.
        draw: see ``Draw``.
        every_s: time between two challenges.
        random: gives so many bytes that nobody knows before.

    Attributes:
        asked, proved: challenges that were made, and those that were met.
        missed: how often each rank did not: a wrong hash, an object that it has not, or silence.
    """

    def __init__(
        self,
        exchange: Exchange,
        link: Link,
        objects: Objects,
        draw: Draw,
        every_s: float,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._exchange, self._link, self._objects, self._draw = exchange, link, objects, draw
        self._every_s, self._random = every_s, random
        self._next_s = link.now() + every_s
        self._waiting: tuple[tuple[int, int], bytes, float] | None = None  # key, answer, deadline
        self.asked = self.proved = 0
        self.missed: Counter[int] = Counter()

    def turn(self) -> bool:
        """Look at an answer, or make the next challenge; whether anything moved."""
        now = self._link.now()
        if self._waiting is not None:
            return self._judge(now)
        if now < self._next_s:
            return False
        self._next_s = now + self._every_s
        drawn = self._draw()
        if drawn is None:
            return False
        peer, name = drawn
        try:
            data = self._objects.get(name)
        except StoreError:
            return False
        size = len(data)
        length = min(size, RANGE_BYTES)
        offset = int.from_bytes(self._random(8), "little") % (size - length + 1)
        nonce = self._random(NONCE_BYTES)
        key = self._exchange.challenge(peer, name, offset, length, nonce)
        self._waiting = key, possession(data, offset, length, nonce), now + DEADLINE_S
        self.asked += 1
        return True

    def _judge(self, now: float) -> bool:
        assert self._waiting is not None
        key, expected, deadline = self._waiting
        if key[0] in self._link.lost():
            self._exchange.forget(key)
            self.asked -= 1  # the dead owe nothing
        elif (answer := self._exchange.proof(key)) is not None:
            if answer == expected:
                self.proved += 1
            else:
                self.missed[key[0]] += 1
        elif now > deadline:
            self._exchange.forget(key)
            self.missed[key[0]] += 1
        else:
            return False
        self._waiting = None
        return True
