"""A network that delays, reorders, loses, repeats and cuts until it is stable; its draws have one seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

Cut = Callable[[int, int, float], bool]


def no_cut(source: int, target: int, now: float) -> bool:
    """Everybody reaches everybody."""
    return False


@dataclass(frozen=True)
class Network:
    """How messages travel. Places are numbers; two places may pretend to be one node.

    Args:
        delay_s: shortest and longest delay of a message; uniform, so messages overtake one another.
        loss, repeat: probability that a message is lost, or comes twice.
        stable_s: from then on nothing is lost or cut, and the longest delay holds.
        unstable_delay_s: longest delay before that.
        cut: whether a message from source to target is lost at that time.
        slow: factor of the delays of everything that these places send.
    """

    delay_s: tuple[float, float] = (0.001, 0.010)
    loss: float = 0.0
    repeat: float = 0.0
    stable_s: float = 0.0
    unstable_delay_s: float = 0.0
    cut: Cut = no_cut
    slow: tuple[tuple[int, float], ...] = ()

    def arrivals(self, source: int, target: int, now: float, draw: random.Random) -> list[float]:
        """When a message sent now arrives: once, twice or never."""
        least, most = self.delay_s
        stable = now >= self.stable_s
        if not stable:
            most = max(most, self.unstable_delay_s)
            if self.cut(source, target, now) or draw.random() < self.loss:
                return []
        copies = 2 if self.repeat and draw.random() < self.repeat else 1
        factor = 1.0
        for place, slowness in self.slow:
            if place == source:
                factor = slowness
        return [now + factor * (least + (most - least) * draw.random()) for _ in range(copies)]


def groups(period_s: float, sides: list[list[int]]) -> Cut:
    """Only places of one side reach one another: ``sides[k][place]``, another k every period."""

    def cut(source: int, target: int, now: float) -> bool:
        division = sides[int(now / period_s) % len(sides)]
        return division[source] != division[target]

    return cut


def ring(size: int) -> Cut:
    """Only neighbours reach one another."""

    def cut(source: int, target: int, now: float) -> bool:
        return (source - target) % size not in (0, 1, size - 1)

    return cut


def one_way(links: frozenset[tuple[int, int]]) -> Cut:
    """These links carry nothing in this direction."""

    def cut(source: int, target: int, now: float) -> bool:
        return (source, target) in links

    return cut
