"""Exchanges whose packets are signed, and compared by those who heard the same sender; see ``witness.py``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar

from pydec.comm.buffers import POST_LIMIT
from pydec.comm.frames import HEADER_BYTES, unpack
from pydec.comm.transport import Transport
from pydec.compress.base import Bytes
from pydec.crypto.claims import payload_digest
from pydec.crypto.signing import SIGNATURE_BYTES
from pydec.errors import FrameError, PeerLost, PeerTimeout
from pydec.gossip.base import Mixer
from pydec.gossip.edges import EdgeMixer
from pydec.gossip.exchange import Exchange
from pydec.gossip.robust.exchange import TolerantExchange, TolerantSwitchedExchange
from pydec.gossip.switch import SwitchedExchange
from pydec.gossip.witness import ENTRY_BYTES, Heard, Said, Slot, Witness
from pydec.topology.base import Topology

_PIECE = POST_LIMIT // ENTRY_BYTES * ENTRY_BYTES


class _Accountable(Exchange):
    """Signs what it sends, takes only what is signed, and tells other listeners what it got.

    Args:
        transport: as for ``Exchange``; nothing else posts to this stream or polls it.
        topology, mixers, options: as for ``Exchange``.
        witness: of this rank.
    """

    trailer: ClassVar[int] = SIGNATURE_BYTES

    def __init__(
        self,
        transport: Transport,
        topology: Topology,
        mixers: Sequence[Mixer],
        *,
        witness: Witness,
        **options: Any,
    ) -> None:
        self.witness = witness
        super().__init__(transport, topology, mixers, **options)
        witness.look = self.hear
        self._listeners_of = lru_cache(maxsize=1 << 12)(topology.listeners)

    def run(self, round: int) -> None:
        """As ``Exchange.run``."""
        self.hear()
        super().run(round)
        self._tell()

    def begin(self, round: int) -> None:
        """As ``Exchange.begin``."""
        self.hear()
        super().begin(round)

    def finish(self, *, mix: bool = True) -> None:
        """As ``Exchange.finish``."""
        super().finish(mix=mix)
        self._tell()

    def hear(self) -> None:
        """Take what others have told."""
        while (note := self.transport.poll()) is not None:
            self.witness.hear(*note)

    def _tell(self) -> None:
        dead = self.transport.lost() | self.gone
        period = self.topology.period
        slot = self.round % period if period else self.round

        def listeners(peer: int) -> list[int]:
            return [rank for rank in self._listeners_of(peer, slot) if rank not in dead]

        for rank, note in self.witness.notes(self.round, listeners).items():
            for at in range(0, len(note), _PIECE):
                with suppress(PeerTimeout, PeerLost):  # the others tell it as well
                    self.transport.post(rank, note[at : at + _PIECE])

    def _seal(self, number: int, room: Bytes, length: int) -> int:
        digest = payload_digest(memoryview(room)[:length])
        # What an honest rank sends to single neighbours is refused before; liars sign each of their lies.
        each = isinstance(self._packets[number].mixer, EdgeMixer)
        sign = self.witness.sign_any if each else self.witness.sign
        slot = Slot(self.epoch, self.round, number)
        signature = sign(slot, digest)
        if self.witness.recorder is not None:
            self.witness.recorder.sent(slot, Said(digest, signature))
        memoryview(room)[length : length + SIGNATURE_BYTES] = signature
        return SIGNATURE_BYTES

    def _take(self, number: int, place: int, peer: int) -> Bytes | None:
        """As ``Exchange._take``; None also if it is not signed by its sender, or that is guilty."""
        body = super()._take(number, place, peer)
        if body is None:
            return None
        view = memoryview(body)
        signature = bytes(view[-SIGNATURE_BYTES:])
        slot, payload = Slot(self.epoch, self.round, number), view[:-SIGNATURE_BYTES]
        if not self.witness.take(peer, slot, Said(payload_digest(payload), signature)):
            self.dropped += 1
            return None
        if self.witness.recorder is not None:
            header = self._headers[number].fill(peer, self.round, payload.nbytes).tobytes()
            heard = Heard(peer, slot, header + bytes(payload), signature)
            self.witness.recorder.heard(heard)
        return body[:-SIGNATURE_BYTES]


class AccountableExchange(_Accountable, Exchange):
    """``Exchange`` with signed packets."""


class AccountableSwitchedExchange(_Accountable, SwitchedExchange):
    """``SwitchedExchange`` with signed packets."""


class AccountableTolerantExchange(_Accountable, TolerantExchange):
    """``TolerantExchange`` with signed packets."""


class AccountableTolerantSwitchedExchange(_Accountable, TolerantSwitchedExchange):
    """``TolerantSwitchedExchange`` with signed packets."""


_SIGNED: dict[type[Exchange], type[_Accountable]] = {
    Exchange: AccountableExchange,
    SwitchedExchange: AccountableSwitchedExchange,
    TolerantExchange: AccountableTolerantExchange,
    TolerantSwitchedExchange: AccountableTolerantSwitchedExchange,
}


def vouched(witness: Witness, heard: Heard) -> bool:
    """Whether a packet is what its sender has signed, and in the place for which it was signed."""
    try:
        frame = unpack(heard.message)
    except FrameError:
        return False
    if (frame.sender, frame.epoch, frame.round, frame.bucket) != (heard.peer, *heard.slot):
        return False
    digest = payload_digest(memoryview(heard.message)[HEADER_BYTES:])
    return witness.is_signed(heard.peer, heard.slot, Said(digest, heard.signature))


def accountable(kind: type[Exchange]) -> type[_Accountable]:
    """That kind of exchange, with signed packets."""
    return _SIGNED[kind]
