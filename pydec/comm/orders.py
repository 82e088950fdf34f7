"""What the supervisor of a job tells its ranks: a line on rank 0's standard input, which launchers carry.

A signal says that all are to leave; the line that comes with it says how many ranks are to go on. Whoever has
no supervisor, or is not rank 0, hears nothing.
"""

from __future__ import annotations

import os
import re
import select
import time

from pydec.comm.words import VARIABLE

_LINE = re.compile(rb"pydec ranks (\d{1,9})\n")
_MOST = 4096  # bytes that are kept of what is no order


def order(ranks: int) -> bytes:
    """The line that asks for a number of ranks; 0: nobody goes on."""
    return b"pydec ranks %d\n" % ranks


class Orders:
    """Reads orders.

    Args:
        rank: of this process.
        source: file descriptor to read.
    """

    def __init__(self, rank: int, source: int = 0) -> None:
        self._open = rank == 0 and bool(os.environ.get(VARIABLE))
        self._source = source
        self._kept = b""

    def take(self, timeout_s: float = 0.0) -> int | None:
        """The next order's number of ranks, None if there is none in time."""
        until_s = time.monotonic() + timeout_s
        while self._open:
            found = _LINE.search(self._kept)
            if found is not None:
                self._kept = self._kept[found.end() :]
                return int(found[1])
            try:
                ready, _, _ = select.select([self._source], [], [], max(0.0, until_s - time.monotonic()))
                data = os.read(self._source, _MOST) if ready else None
            except (OSError, ValueError):
                data = b""
            if data is None:
                return None
            self._open = bool(data)
            self._kept = (self._kept + data)[-_MOST:]
        return None
