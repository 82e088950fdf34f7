"""Newcomers that a rank starts beside a running MPI job, and all that can go wrong until they are in it.

They are watched from their first word to the end of the merge: on this machine by their process
(``alive``), elsewhere by what MPI knows. Every wait for them ends.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydec.comm.alive import CARD_BYTES, Watched
from pydec.comm.detect import first_line
from pydec.comm.mpi import Job, end_abruptly
from pydec.comm.orders import Newcomers
from pydec.errors import SetupError

START_S = 60.0  # for newcomers to start and initialise MPI
READY_S = 150.0  # to load what they need, too
COME_S = 30.0  # to answer that they come
HERE, READY, TOLD, COMING, STAY = 1, 2, 3, 4, 5
"""Tags, between the rank that starts newcomers and them: what both say, in this order."""
NAP_S = 2e-3
_WATCH_S = 0.05


class Spawning:
    """Newcomers that this rank starts, from its construction on; they wait to be told to come, or not to.

    Args:
        job: this rank's.
        asked: who.

    Attributes:
        ready: whether all wait.
    """

    def __init__(self, job: Job, asked: Newcomers) -> None:
        self.job, self.asked = job, asked
        self.ready = False
        self.bridge: Any = None
        self._failure = ""
        self._here = self._told = self._stays = False
        self._watched = Watched()
        self._receives: list[Any] = []
        self._began_s = time.monotonic()
        end_abruptly()
        threading.Thread(target=self._run, name="pydec-spawn", daemon=True).start()

    @property
    def failure(self) -> str:
        """Why they will not join, or ""."""
        if not self._failure and not self._here and time.monotonic() > self._began_s + START_S:
            return f"they did not start within {START_S:g} s"  # MPI may never come back from starting them
        return self._failure

    def gone(self) -> bool:
        """Whether one of them has ended, as far as that can be seen."""
        return self._watched.gone() or (self.bridge is not None and deaths(self.bridge) > 0)

    def come(self, old: int, ranks: Sequence[int]) -> None:
        """Have all newcomers join now; returns when they have answered.

        Args:
            old: how many old ranks there are.
            ranks: in the new job, of the old ranks and then of the newcomers.

        Raises:
            SetupError: not all come, and those that would are told to end.
        """
        try:
            if self.gone():
                raise SetupError("one of them ended while it waited")
            self._send(TOLD, struct.pack(f"<{2 + len(ranks)}I", old, self.job.rank, *ranks))
            self._told = True
            self._words(COMING, 1, time.monotonic() + COME_S)
        except self.job.mpi.Exception as error:
            self.stay()
            raise SetupError(f"they cannot be reached: {first_line(str(error))}") from error
        except SetupError:
            self.stay()
            raise

    def stay(self) -> None:
        """Tell all newcomers to end, whatever they are at; those that are not there yet, when they are."""
        self._stays = True
        if self.bridge is None:
            return
        if not self._told:
            self._send(TOLD, b"")
        self._told = True
        self._send(STAY, b"\1")

    def close(self) -> None:
        """Watch them no more."""
        self._watched.close()

    def _send(self, tag: int, word: bytes) -> None:
        mpi = self.job.mpi
        for place in range(len(self.asked.numbers)):
            with suppress(mpi.Exception):  # who is dead needs no word
                request = self.bridge.Isend([word, len(word), mpi.BYTE], place, tag)
                self.job.requests.give_up(request, word)

    def _run(self) -> None:
        try:
            self.bridge = self._spawned()
            if not self._stays:
                self._await()
        except self.job.mpi.Exception as error:
            self._failure = f"MPI does not start them: {first_line(str(error))}"
        except Exception as error:
            self._failure = f"they did not start: {error}"
        if self._failure or self._stays:
            self.stay()

    def _spawned(self) -> Any:
        mpi, asked = self.job.mpi, self.asked
        info = mpi.Info.Create()
        info.Set("wdir", os.getcwd())
        info.Set("bind_to", "none")
        if asked.crowd:
            info.Set("map_by", ":OVERSUBSCRIBE")
        comm = mpi.COMM_SELF.Spawn(
            asked.command[0], list(asked.command[1:]), maxprocs=len(asked.numbers), info=info
        )
        comm.Set_errhandler(mpi.ERRORS_RETURN)
        return comm

    def _await(self) -> None:
        """Until all are ready, and then until one ends or they are told what to do."""
        for card in self._words(HERE, CARD_BYTES, self._began_s + START_S):
            self._watched.add(bytes(card))
        self._here = True
        if b"\0" in self._words(READY, 1, self._began_s + READY_S):
            raise SetupError("one of them cannot train, and says why in its output")
        self.ready = True
        while not self._told:
            if self.gone() and not self._told:
                raise SetupError("one of them ended while it waited")
            time.sleep(_WATCH_S)

    def _words(self, tag: int, n_bytes: int, until_s: float) -> list[bytearray]:
        """What each newcomer says."""
        mpi, buffers = self.job.mpi, [bytearray(n_bytes) for _ in self.asked.numbers]
        waiting = [
            self.bridge.Irecv([into, n_bytes, mpi.BYTE], place, tag) for place, into in enumerate(buffers)
        ]
        self._receives += [waiting, buffers]  # MPI may use them even after a failure
        while waiting:
            if time.monotonic() > until_s:
                late = "do not come" if tag == COMING else f"are not ready after {READY_S:g} s"
                raise SetupError(f"{len(waiting)} of them {late}")
            if self.gone():
                raise SetupError("one of them ended before it was ready")
            waiting = [request for request in waiting if not arrived(mpi, request)]
            time.sleep(NAP_S)
        return buffers


def arrived(mpi: Any, request: Any) -> bool:
    """Whether a message of another process has come; frees the request then.

    Raises:
        SetupError: that process is dead.
    """
    status = mpi.Status()
    if not request.Get_status(status):
        return False
    if status.Get_error():
        raise SetupError("one of them has ended")
    request.Test()
    return True


def deaths(comm: Any) -> int:
    """How many ranks of a communicator MPI knows to be dead; only who asks is told, and its receives end."""
    group = comm.Get_failed()
    count: int = group.Get_size()
    group.Free()
    return count
