"""Threads that take turns in virtual time, so that concurrent programs run the same way every time.

Each rank is a thread, but only the holder of the baton runs. A rank gives the baton away when it
parks; when nobody can run, the clock jumps to the next event. Nothing here depends on the speed of
the machine or on the operating system's scheduler.
"""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from math import inf

from pydec.errors import PydecError


class Deadlock(PydecError):
    """Every rank waits and nothing is left that could wake one; the message says who waits for what."""


class Abandoned(BaseException):
    """Raised in a rank's thread when the run was interrupted from outside."""


class Baton:
    """A deterministic scheduler of ``size`` ranks.

    Ranks that can run do so in the order in which they became able to; events happen in the order
    (time, order of scheduling).

    Args:
        size: number of ranks, at least 1.
    """

    def __init__(self, size: int) -> None:
        self.time_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0
        self._ready: deque[int] = deque()
        self._parked: list[Callable[[], str] | None] = [None] * size
        self._wake_at = [inf] * size
        self._turns = [threading.Semaphore(0) for _ in range(size)]
        self._stuck: str | None = None
        self._abandoned = False
        self._over = threading.Event()

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """Do ``action`` when the clock reaches ``time_s``; whichever rank holds the baton runs it."""
        heapq.heappush(self._events, (time_s, self._scheduled, action))
        self._scheduled += 1

    def wake(self, rank: int) -> None:
        """Let a parked rank run again; nothing if it is not parked."""
        if self._parked[rank] is not None:
            self._parked[rank] = None
            self._wake_at[rank] = inf
            self._ready.append(rank)

    def wake_all(self) -> None:
        """Let every parked rank run again, in the order of ranks."""
        for rank in range(len(self._parked)):
            self.wake(rank)

    def park(self, rank: int, until_s: float, what: Callable[[], str]) -> None:
        """Give the baton away until somebody wakes ``rank`` or the clock reaches ``until_s``.

        Args:
            rank: the caller, which holds the baton.
            until_s: time on the virtual clock; ``math.inf`` for never.
            what: says what the rank waits for, in words that follow "rank 3 waits for".

        Raises:
            Deadlock: nothing is left that could wake anybody.
        """
        self._parked[rank] = what
        self._wake_at[rank] = until_s
        self._pass_on(rank)
        if self._abandoned:
            raise Abandoned
        if self._stuck is not None:
            raise Deadlock(self._stuck)

    def run(self, bodies: list[Callable[[], None]]) -> None:
        """Run one body per rank to the end; bodies handle their own exceptions."""
        threads = [
            threading.Thread(target=self._live, args=(rank, body), name=f"rank {rank}", daemon=True)
            for rank, body in enumerate(bodies)
        ]
        self._ready.extend(range(len(bodies)))
        for thread in threads:
            thread.start()
        try:
            self._turns[self._ready.popleft()].release()
            self._over.wait()
        except BaseException:
            self._abandoned = True
            self._over.wait(5.0)  # a rank that computes notices at its next wait; daemons die anyway
            raise
        for thread in threads:
            thread.join()

    def waiting(self) -> str:
        """Who waits for what, in one line."""
        return "; ".join(f"rank {r} waits for {what()}" for r, what in enumerate(self._parked) if what)

    def idle(self) -> bool:
        """Whether no event is scheduled and no rank can run."""
        return not self._events and not self._ready

    def _live(self, rank: int, body: Callable[[], None]) -> None:
        self._turns[rank].acquire()
        try:
            body()
        finally:
            self._pass_on(None)

    def _pass_on(self, rank: int | None) -> None:
        following = self._next()
        if following is None:
            self._over.set()
        elif following != rank:
            self._turns[following].release()
            if rank is not None:
                self._turns[rank].acquire()

    def _next(self) -> int | None:
        while True:
            if self._abandoned:
                self.wake_all()
            if self._ready:
                return self._ready.popleft()
            event_s = self._events[0][0] if self._events else inf
            timer_s = min(self._wake_at)
            if event_s == timer_s == inf:
                self._stuck = f"deadlock at {self.time_s:.6f} s: {self.waiting()}"
                self.wake_all()
                if not self._ready:
                    return None
            elif event_s <= timer_s:
                self.time_s, _, action = heapq.heappop(self._events)
                action()
            else:
                self.time_s = timer_s
                self.wake(self._wake_at.index(timer_s))
