"""Whether other processes of this machine live: MPI says nothing of those that it starts and that die early.

A process shows a card; whoever has it can watch that process, if both see the same processes (one kernel, one
namespace of process numbers). Linux tells of its end at once, whatever that was (pidfd_open(2)).
"""

from __future__ import annotations

import hashlib
import os
import select
import struct
import threading
from contextlib import suppress
from pathlib import Path

CARD_BYTES = 24
_CARD = struct.Struct("<16sQ")
_NOWHERE = bytes(16)


def card() -> bytes:
    """What others need to watch this process: where its number holds, and the number."""
    return _CARD.pack(_where(), os.getpid())


class Watched:
    """Processes that are watched by their cards; those of other machines count as living."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._ends: list[int] = []
        self._gone = False

    def add(self, shown: bytes) -> None:
        """Watch one more; ``shown`` has ``CARD_BYTES`` bytes."""
        where, number = _CARD.unpack(shown)
        if where == _NOWHERE or where != _where() or not hasattr(os, "pidfd_open"):
            return
        try:
            end = os.pidfd_open(number)
        except ProcessLookupError:
            self._gone = True
        except (OSError, OverflowError):
            return  # an old kernel, or too many files are open: MPI or a deadline tells
        else:
            with self._lock:
                self._ends.append(end)
                self._poll.register(end, select.POLLIN)

    def gone(self) -> bool:
        """Whether one of them has ended; any thread may ask."""
        with self._lock:
            self._gone = self._gone or bool(self._poll.poll(0))
            return self._gone

    def close(self) -> None:
        """Watch nobody any more; idempotent."""
        with self._lock:
            while self._ends:
                end = self._ends.pop()
                self._poll.unregister(end)
                os.close(end)


def _where() -> bytes:
    """Which kernel, and which of its namespaces of process numbers; ``_NOWHERE`` if that cannot be told."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        return hashlib.sha256(boot + os.readlink("/proc/self/ns/pid").encode()).digest()[:16]
    return _NOWHERE
