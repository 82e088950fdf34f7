"""What transports over another transport have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydec.comm.transport import Background, Transport


class Outer:
    """A transport over another one, where what it has not itself (``host``, ``library``) is found, too.

    Attributes:
        inner: the transport below.
    """

    inner: Transport

    def __getattr__(self, name: str) -> Any:
        if name in ("inner", "__setstate__"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def deadline_s(self) -> float:
        """See ``Transport``."""
        return self.inner.deadline_s

    @deadline_s.setter
    def deadline_s(self, seconds: float) -> None:
        self.inner.deadline_s = seconds

    @property
    def tolerant(self) -> bool:
        """See ``Transport.tolerant``."""
        return self.inner.tolerant

    def advance(self) -> None:
        """See ``Transport.advance``."""
        self.inner.advance()

    def background(self, tick: Callable[[], bool], *, most_s: float = 1e-3) -> Background | None:
        """See ``Transport.background``."""
        return self.inner.background(tick, most_s=most_s)

    def set_interrupt(self, interrupt: Callable[[], None] | None) -> None:
        """See ``Transport.set_interrupt``."""
        self.inner.set_interrupt(interrupt)

    def now(self) -> float:
        """See ``Transport.now``."""
        return self.inner.now()
