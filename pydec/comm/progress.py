"""A thread that lets messages move while the program computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pydec.comm.backoff import Backoff
from pydec.comm.bell import Bell

_LEAST_S, _MOST_S = 50e-6, 1e-3
RUNG_S = 5e-3  # shortest sleep of a thread that is rung for
_PATIENCE = 8  # sleeps are a fraction of how long nothing has happened: 0.4 s of silence before 50 ms


class Engine:
    """Calls a function again and again beside the program, in a thread of its own.

    At once again while the function finds something to do; else after sleeps that grow from 50 us to
    ``most_s``, because the cores belong to the computation: a thread that spins would halve its speed where
    every core has a rank.

    Args:
        tick: returns whether it found anything to do; what it raises ends the thread and is raised again
            by ``close``.
        name: of the thread.
        most_s: longest sleep, in seconds; those above a millisecond come only after long silence.
        bell: rung when there is something to do. With it the thread sleeps until then, and else for
            ``RUNG_S`` or more, even when ``tick`` has just found something.
        patient: whether whatever is left to do will be rung for; while it says no, all is as without a bell.
    """

    def __init__(
        self,
        tick: Callable[[], bool],
        name: str = "pydec messages",
        *,
        most_s: float = _MOST_S,
        bell: Bell | None = None,
        patient: Callable[[], bool] = lambda: True,
    ) -> None:
        self._tick = tick
        self._most_s = most_s
        self._bell, self._patient = bell, patient
        self._kicked = threading.Event()
        self._closing = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether ``close`` has been called."""
        return self._closing

    def kick(self) -> None:
        """Look soon, with short sleeps again; from any thread."""
        self._kicked.set()
        if self._bell is not None:
            self._bell.kick()

    def close(self) -> None:
        """End the thread and wait for it; idempotent.

        Raises:
            BaseException: what ``tick`` raised, once.
        """
        self._closing = True
        self.kick()
        if self._thread is not threading.current_thread():
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        backoff = Backoff(spin_s=0.0, least_s=_LEAST_S, most_s=min(_MOST_S, self._most_s))
        busy_s = time.monotonic()
        try:
            while not self._closing:
                if self._tick():
                    backoff.reset()
                    busy_s = time.monotonic()
                    if self._bell is not None and self._patient():
                        self._bell.wait(min(RUNG_S, self._most_s))
                elif self._kicked.is_set():
                    self._kicked.clear()
                    backoff.reset()
                    busy_s = time.monotonic()
                else:
                    now_s = time.monotonic()
                    sleep_s = min((now_s - busy_s) / _PATIENCE, self._most_s)
                    if self._bell is not None and self._patient():
                        self._bell.wait(max(sleep_s, min(RUNG_S, self._most_s)))
                    elif sleep_s > _MOST_S:
                        self._kicked.wait(sleep_s)
                    else:
                        backoff.pause(now_s)
        except BaseException as error:
            self._error = error
