"""How a wait gives the processor away, to equals at once, then for longer and longer; and when it ends."""

from __future__ import annotations

import os
import time

_STILL_S = 1.0  # between two looks of a wait, which come every millisecond: more is no waiting


class Limit:
    """A limit of a wait that does not run on while this process stands still, as between SIGSTOP and SIGCONT.

    Args:
        now_s: when the wait begins, on any clock.
        limit_s: seconds that it may take.
    """

    __slots__ = ("_looked_s", "until_s")

    def __init__(self, now_s: float, limit_s: float) -> None:
        self._looked_s = now_s
        self.until_s = now_s + limit_s

    def passed(self, now_s: float) -> bool:
        """Whether the wait has taken that long; ask in every look."""
        self.until_s += max(0.0, now_s - self._looked_s - _STILL_S)
        self._looked_s = now_s
        return now_s >= self.until_s


class Backoff:
    """Pauses between polls that behave well with more ranks than cores.

    The first pauses only yield, for ``spin_s`` seconds in all: a partner that is about to answer
    does so within microseconds, and with more ranks than cores the yield lets it run. Then sleeps
    grow from ``least_s`` to ``most_s``, so that a long wait costs no processor time.

    Args:
        spin_s: seconds of yielding before the first sleep.
        least_s: first sleep, in seconds; Linux adds about 50 us to any.
        most_s: longest sleep, in seconds; what a message may wait for its receiver to look.
    """

    __slots__ = ("_least_s", "_most_s", "_sleep_s", "_spin_s", "_until_s")

    def __init__(self, spin_s: float = 200e-6, least_s: float = 20e-6, most_s: float = 500e-6) -> None:
        self._spin_s, self._least_s, self._most_s = spin_s, least_s, most_s
        self.reset()

    def reset(self) -> None:
        """Start over, after something moved."""
        self._until_s = time.monotonic() + self._spin_s
        self._sleep_s = self._least_s

    def pause(self, now_s: float) -> None:
        """Give the processor away once; ``now_s`` is ``time.monotonic()``."""
        if now_s < self._until_s:
            os.sched_yield()
        else:
            time.sleep(self._sleep_s)
            self._sleep_s = min(1.5 * self._sleep_s, self._most_s)
