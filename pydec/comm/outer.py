"""What transports over another transport have in common."""

from __future__ import annotations

from typing import Any

from pydec.comm.transport import Transport


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
