"""What the supervisor of a job tells its ranks: lines on rank 0's standard input, which launchers carry.

A signal says that all are to leave; the line that comes with it says how many ranks are to go on. Another
line asks for newcomers while the job runs. Whoever has no supervisor, or is not rank 0, hears nothing.
"""

from __future__ import annotations

import json
import os
import re
import select
import time
from dataclasses import asdict, dataclass

from pydec.comm.words import VARIABLE

_RANKS = re.compile(rb"pydec ranks (\d{1,9})\n")
_GROWTH = re.compile(rb"pydec growth (\{.*\})\n")
_MOST = 65_536  # bytes that are kept of what is no order


@dataclass(frozen=True)
class Newcomers:
    """Who is to join a running job.

    Args:
        command: what each of them runs.
        numbers: the ranks that they become: those of the dead, and those after the last.
        hosts: "HOST:SLOTS,..." that are new to the job, where they run; "" starts them where there is room.
        crowd: whether they may be more than there are slots.
    """

    command: tuple[str, ...]
    numbers: tuple[int, ...]
    hosts: str = ""
    crowd: bool = False


def order(ranks: int) -> bytes:
    """The line that asks for a number of ranks; 0: nobody goes on."""
    return b"pydec ranks %d\n" % ranks


def growth(newcomers: Newcomers) -> bytes:
    """The line that asks for newcomers."""
    return b"pydec growth %b\n" % json.dumps(asdict(newcomers)).encode()


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
        found = self._next(_RANKS, timeout_s)
        return None if found is None else int(found[1])

    def newcomers(self) -> Newcomers | None:
        """The next order to take newcomers in, None if there is none yet; does not wait."""
        found = self._next(_GROWTH, 0.0)
        if found is None:
            return None
        asked = json.loads(found[1])
        return Newcomers(
            tuple(map(str, asked["command"])),
            tuple(map(int, asked["numbers"])),
            str(asked["hosts"]),
            asked["crowd"] is True,
        )

    def _next(self, form: re.Pattern[bytes], timeout_s: float) -> re.Match[bytes] | None:
        until_s = time.monotonic() + timeout_s
        while self._open or self._kept:
            found = form.search(self._kept)
            if found is not None:
                self._kept = self._kept[: found.start()] + self._kept[found.end() :]
                return found
            if not self._open:
                return None
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
