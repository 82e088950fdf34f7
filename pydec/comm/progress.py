"""A thread that lets messages move while the program computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pydec.comm.backoff import Backoff

_LEAST_S, _MOST_S = 50e-6, 1e-3


class Engine:
    """Calls a function again and again beside the program, in a thread of its own.

    At once again while the function finds something to do; else after sleeps that grow from 50 us to 1 ms,
    because the cores belong to the computation: a thread that spins would halve its speed where every core
    has a rank.

    Args:
        tick: returns whether it found anything to do; what it raises ends the thread and is raised again
            by ``close``.
        name: of the thread.
    """

    def __init__(self, tick: Callable[[], bool], name: str = "pydec messages") -> None:
        self._tick = tick
        self._closing = False
        self._kicked = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """Look soon, with short sleeps again."""
        self._kicked = True

    def close(self) -> None:
        """End the thread and wait for it; idempotent.

        Raises:
            BaseException: what ``tick`` raised, once.
        """
        self._closing = True
        if self._thread is not threading.current_thread():
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        backoff = Backoff(spin_s=0.0, least_s=_LEAST_S, most_s=_MOST_S)
        try:
            while not self._closing:
                if self._tick() or self._kicked:
                    self._kicked = False
                    backoff.reset()
                else:
                    backoff.pause(time.monotonic())
        except BaseException as error:
            self._error = error
