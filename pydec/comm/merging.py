"""Work in MPI that may never end, and what ranks tell one another meanwhile, so that all give up together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from pydec.comm.detect import first_line
from pydec.comm.mpi import Job
from pydec.comm.spawning import COME_S, NAP_S, arrived
from pydec.comm.transport import Stream
from pydec.errors import SetupError

T = TypeVar("T")

LOOK_S = 0.02
_WORD_TAG = (1 << 22) + 2_000_001  # of the CONTROL stream, above those of ``enlarge``


class Told:
    """What the old ranks tell one another while they merge, in the old job: a byte, whether it goes well.

    Args:
        job: the old one.
        living: its ranks.
        leader: of these.
        number: how many others the job has tried before.
    """

    def __init__(self, job: Job, living: Sequence[int], leader: int, number: int) -> None:
        self._job, self._leader, self._tag = job, leader, _WORD_TAG + 2 * number
        self._others = [rank for rank in living if rank != job.rank]
        self._comm = job.comms[Stream.CONTROL]
        self._begins = self._receive(leader, self._tag) if leader != job.rank else None
        self._waiting = {rank: self._receive(rank, self._tag + 1) for rank in self._others}

    def begin(self, *, fine: bool) -> None:
        """The leader: tell the others whether the newcomers come."""
        if self._job.rank == self._leader:
            self._say(self._tag, fine)

    def await_leader(self) -> None:
        """The others: wait for that word.

        Raises:
            SetupError: they do not come, or nothing is heard.
        """
        assert self._begins is not None
        request, into = self._begins
        until_s = time.monotonic() + 2 * COME_S
        while not arrived(self._job.mpi, request):
            if time.monotonic() > until_s:
                raise SetupError(f"rank {self._leader}, which has started the newcomers, says nothing")
            time.sleep(NAP_S)
        if not into[0]:
            raise SetupError("the newcomers do not come")

    def merged(self, *, fine: bool) -> None:
        """Tell all whether this rank is merged with the newcomers."""
        self._say(self._tag + 1, fine)

    def look(self) -> None:
        """Raise SetupError if one of the others is not."""
        for rank, (request, into) in list(self._waiting.items()):
            if arrived(self._job.mpi, request):
                del self._waiting[rank]
                if not into[0]:
                    raise SetupError(f"rank {rank} could not be merged with the newcomers")

    def all_merged(self) -> bool:
        """Whether all others are, as far as ``look`` has heard."""
        return not self._waiting

    def _receive(self, rank: int, tag: int) -> tuple[Any, bytearray]:
        into = bytearray(1)
        request = self._comm.Irecv([into, 1, self._job.mpi.BYTE], rank, tag)
        self._job.requests.give_up(request, into)  # whatever becomes of it
        return request, into

    def _say(self, tag: int, fine: bool) -> None:
        word = bytes([fine])
        for rank in self._others:
            with suppress(self._job.mpi.Exception):  # who is dead needs no word
                self._job.requests.give_up(self._comm.Isend([word, 1, self._job.mpi.BYTE], rank, tag), word)


class _GivenUpError(Exception):
    """Nobody waits for this any more."""


def bounded(work: Callable[[Callable[[], None]], T], look: Callable[[], None], until_s: float) -> T:
    """Do it in a thread, which is left alone if it does not come back, or if ``look`` raises.

    Args:
        work: is given what it has to call between its parts.
        look: is called all the while, and raises SetupError.
        until_s: on ``time.monotonic``'s clock.
    """
    results: list[T] = []
    errors: list[Exception] = []
    given_up = threading.Event()

    def check() -> None:
        if given_up.is_set():
            raise _GivenUpError

    def run() -> None:
        try:
            results.append(work(check))
        except _GivenUpError:
            return
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="pydec-merge", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(LOOK_S)
            look()
            if time.monotonic() > until_s:
                raise SetupError("it took too long")
    finally:
        given_up.set()
    if errors:
        raise SetupError(f"the ranks could not be merged: {first_line(str(errors[0]))}") from errors[0]
    return results[0]
