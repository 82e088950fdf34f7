"""What the supervisor of a job tells its ranks: lines on rank 0's standard input, which launchers carry.

A signal says that all are to leave; the line that comes with it says how many ranks are to go on. Another
line asks for newcomers while the job runs. Ranks on the supervisor's machine hear the same lines from a file,
which serves when rank 0 is dead: mpirun's ``--stdin all`` fails in Open MPI 5.0.11.
"""

from __future__ import annotations

import json
import os
import re
import select
import time
from contextlib import suppress
from dataclasses import asdict, dataclass

from pydec.comm.words import VARIABLE

_RANKS = re.compile(rb"pydec ranks (\d{1,9})\n")
_GROWTH = re.compile(rb"pydec growth (\{.*\})\n")
_MOST = 65_536  # bytes that are kept of what is no order
_NAP_S = 0.02


@dataclass(frozen=True)
class Newcomers:
    """Who is to join a running job.

    Args:
        command: what each of them runs.
        numbers: the ranks that they become: those of the dead, and those after the last.
        crowd: whether they may be more than there are slots.
    """

    command: tuple[str, ...]
    numbers: tuple[int, ...]
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
        source: file descriptor that rank 0 reads.
        joins: whether this process has joined the job, so that nobody carries it what rank 0 hears.

    Attributes:
        heard: whether orders come here at all.
    """

    def __init__(self, rank: int, source: int = 0, *, joins: bool = False) -> None:
        said = os.environ.get(VARIABLE, "")
        self._kept, self._source, self._file = b"", -1, -1
        if rank == 0 and said and not joins:
            self._source = source
        elif os.path.isabs(said):
            with suppress(OSError):  # it is on another machine
                self._file = os.open(said, os.O_RDONLY)
                os.lseek(self._file, 0, os.SEEK_END)
        self.heard = self._open = max(self._source, self._file) >= 0

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
            data = self._read(until_s)
            if data is None:
                return None
            self._open = bool(data)
            self._kept = (self._kept + data)[-_MOST:]
        return None

    def _read(self, until_s: float) -> bytes | None:
        """What has come, at the latest then; None if nothing, empty if nothing can come any more."""
        try:
            while self._file >= 0:
                if data := os.read(self._file, _MOST):
                    return data
                if time.monotonic() >= until_s:
                    return None
                time.sleep(_NAP_S)
            ready, _, _ = select.select([self._source], [], [], max(0.0, until_s - time.monotonic()))
            return os.read(self._source, _MOST) if ready else None
        except (OSError, ValueError):
            return b""
