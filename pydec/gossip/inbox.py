"""Where packets arrive: a window of packets of every neighbour, in memory that is allocated once."""

from __future__ import annotations

from pydec.comm.frames import HEADER_BYTES
from pydec.compress.base import Bytes
from pydec.gossip.memory import aligned_bytes


class Inbox:
    """Slots in host memory; packet ``number`` of a neighbour takes the place of ``number - window``.

    Args:
        window: packets of one neighbour that have room at a time.
        degree: the most neighbours.
        slot: bytes of the largest message.
    """

    def __init__(self, window: int, degree: int, slot: int) -> None:
        self._window, self._degree, self._slot = window, degree, slot
        self.torn = False
        """Whether MPI may still know its memory as the place of what the dead were sending."""
        self._renew()

    @property
    def nbytes(self) -> int:
        """Bytes of all slots."""
        return self._memory.nbytes

    def mend(self) -> None:
        """Take other memory if it is torn; nothing is under way."""
        if self.torn:
            self._renew()
            self.torn = False

    def _renew(self) -> None:
        self._memory = aligned_bytes(self._window * self._degree * self._slot)

    def landing(self, number: int, place: int, n_bytes: int) -> memoryview:
        """Where to receive a packet of at most ``n_bytes``, header included, from the one at ``place``."""
        return memoryview(self.seen(number, place, n_bytes))

    def seen(self, number: int, place: int, arrived: int) -> Bytes:
        """The message that has arrived; its header at least is what was sent."""
        start = (number % self._window * self._degree + place) * self._slot
        return self._memory[start : start + arrived]

    def body(self, number: int, place: int, arrived: int) -> Bytes:
        """The same without its header, as mixers take it."""
        return self.seen(number, place, arrived)[HEADER_BYTES:]
