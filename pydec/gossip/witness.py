"""Who tells different things to different listeners is found: signed digests, compared among the listeners.

Every packet carries its sender's signature over what it is, which round it is of, and its digest
(``crypto.claims``). What has no valid signature is dropped. After a round each listener of a sender passes
the claim that it got on to the next ``witnesses`` listeners of that sender, in the circle of ranks. If two
honest listeners hold different claims, two honest ones that tell each other do, as long as fewer than
2 ``witnesses`` of the listeners work with the liar: so many must be taken out of that graph before it falls
apart (Boesch and Tindell, "Circulants and their connectivities", Journal of Graph Theory 8, 1984). Nobody can
be blamed for what it has not signed twice: who makes a claim up has no signature for it.

This module does no I/O. ``accountable.py`` carries its notes.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pydec.crypto.claims import claim_bytes
from pydec.crypto.signing import SIGNATURE_BYTES, verify
from pydec.errors import SignatureError

_ENTRY = struct.Struct(">IQQI32s64s")  # subject, epoch, round, number, digest, signature
ENTRY_BYTES = _ENTRY.size
_WINDOW = 32
_PATIENCE = 16  # made-up claims of a witness, each of which costs a verification, before it is not heard
_MOST = 1 << 12  # claims about one round that a witness is remembered with


class Signer(Protocol):
    """Holds a private key; ``pydec.crypto.signing.SigningKey`` is one."""

    def sign(self, message: bytes) -> bytes:
        """64 bytes over ``message``."""
        ...


class Slot(NamedTuple):
    """Which packet of a sender."""

    epoch: int
    round: int
    number: int


@dataclass(frozen=True, slots=True)
class Said:
    """What a sender claims of a packet; whether the signature is its own is another question."""

    digest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Heard:
    """A packet that was taken: its sender, header and payload, and the signature over its claim."""

    peer: int
    slot: Slot
    message: bytes
    signature: bytes


class Recorder(Protocol):
    """Keeps what an audit will ask for."""

    def heard(self, heard: Heard) -> None:
        """A packet was taken."""

    def sent(self, slot: Slot, said: Said) -> None:
        """A packet was signed."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two claims that ``peer`` has signed about one packet, in the order of their digests."""

    peer: int
    slot: Slot
    first: Said
    second: Said


class Witness:
    """One rank's memory of who has signed what.

    Args:
        rank: this one.
        context: chain id and run id, 64 bytes; see ``claim_bytes``.
        signer: of this rank's packets.
        keys: public keys by rank.
        witnesses: to how many listeners of a sender its claims are passed on.

    Attributes:
        guilty: ranks that have signed two things, or lost their stake; nothing of theirs is taken.
        counts: packets "signed", "verified", "unsigned" (dropped), "refused" (of the guilty); claims "told"
            to others, "compared" and "made up" by others, "ignored" because of their round or teller.
        accuse: called with every new conflict.
        look: takes what others have told since; set by the exchange that carries it.
        recorder: told of every packet that is signed or taken.
        window: rounds around the present one whose claims are kept.
    """

    def __init__(
        self, rank: int, context: bytes, signer: Signer, keys: Mapping[int, bytes], witnesses: int = 2
    ) -> None:
        if witnesses < 1:
            raise ValueError(f"claims are passed on to at least 1 witness, got {witnesses}")
        self.rank, self.witnesses = rank, witnesses
        self.guilty: set[int] = set()
        self.counts: Counter[str] = Counter()
        self.accuse: Callable[[Conflict], None] = lambda conflict: None
        self.look: Callable[[], None] = lambda: None
        self.recorder: Recorder | None = None
        self.window = _WINDOW
        self._context, self._signer, self._keys = context, signer, keys
        self._signed: dict[int, Said] = {}  # by number, of the slots of ``_last``
        self._last = (-1, -1)
        self._own: dict[int, dict[int, dict[Slot, Said]]] = {}  # by round and sender: verified
        self._told: dict[
            int, dict[int, dict[tuple[int, Slot], Said]]
        ] = {}  # by round and teller: not yet own
        self._faults: Counter[int] = Counter()
        self._round = 0

    def sign(self, slot: Slot, digest: bytes) -> bytes:
        """The signature of a packet that goes to everybody, 64 bytes.

        Raises:
            RuntimeError: another digest has been signed in its place, or a later round; who sent both would
                be held for a liar.
        """
        last = (slot.epoch, slot.round)
        if last < self._last:
            raise RuntimeError(
                f"round {last[1]} of epoch {last[0]} comes after {self._last}; nothing is signed"
            )
        if last != self._last:
            self._last = last
            self._signed.clear()
        before = self._signed.get(slot.number)
        if before is not None and before.digest != digest:
            raise RuntimeError(f"packet {slot.number} of round {slot.round} was signed with another digest")
        if before is None:
            before = self._signed[slot.number] = Said(digest, self.sign_any(slot, digest))
        return before.signature

    def sign_any(self, slot: Slot, digest: bytes) -> bytes:
        """A signature without that care, for ranks that lie to test the others."""
        self.counts["signed"] += 1
        return self._signer.sign(claim_bytes(self._context, *slot, digest))

    def take(self, peer: int, slot: Slot, said: Said) -> bool:
        """A packet has come from its sender; whether it may be used."""
        if peer in self.guilty:
            self.counts["refused"] += 1
            return False
        if not self.is_signed(peer, slot, said):
            self.counts["unsigned"] += 1
            return False
        self.counts["verified"] += 1
        own = self._own.setdefault(slot.round, {}).setdefault(peer, {})
        own[slot] = said
        for teller, claims in self._told.get(slot.round, {}).items():
            other = claims.pop((peer, slot), None)
            if other is not None:
                self._compare(peer, slot, said, teller, other)
        return peer not in self.guilty

    def notes(self, round: int, listeners: Callable[[int], Sequence[int]]) -> dict[int, bytes]:
        """What to tell whom, after a round.

        Args:
            round: whose packets have come.
            listeners: of a sender in that round, in increasing order, this rank among them.
        """
        self._round = max(self._round, round)
        for known in (self._own, self._told):
            for old in [at for at in known if at + self.window < self._round]:
                del known[old]
        out: dict[int, bytearray] = {}
        for peer, claims in self._own.get(round, {}).items():
            entries = self.testify(peer, claims)
            for witness in successors(listeners(peer), self.rank, self.witnesses):
                out.setdefault(witness, bytearray()).extend(entries)
                self.counts["told"] += len(claims)
        return {witness: bytes(entries) for witness, entries in out.items()}

    def testify(self, peer: int, claims: Mapping[Slot, Said]) -> bytes:
        """A note with claims that ``peer`` has made to this rank, for all who have heard it."""
        return b"".join(_ENTRY.pack(peer, *slot, *_fields(said)) for slot, said in claims.items())

    def is_signed(self, peer: int, slot: Slot, said: Said) -> bool:
        """Whether a claim is that of ``peer``."""
        if peer not in self._keys or len(said.signature) != SIGNATURE_BYTES:
            return False
        try:
            verify(self._keys[peer], claim_bytes(self._context, *slot, said.digest), said.signature)
        except SignatureError:
            return False
        return True

    def hear(self, teller: int, note: bytes) -> None:
        """What another listener has told."""
        if len(note) % ENTRY_BYTES or self._faults[teller] >= _PATIENCE:
            self.counts["ignored"] += 1
            return
        for peer, epoch, round, number, digest, signature in _ENTRY.iter_unpack(note):
            slot, said = Slot(epoch, round, number), Said(digest, signature)
            if (
                peer not in self._keys
                or peer in (self.rank, teller)
                or abs(round - self._round) > self.window
            ):
                self.counts["ignored"] += 1
                continue
            own = self._own.get(round, {}).get(peer, {}).get(slot)
            if own is not None:
                self._compare(peer, slot, own, teller, said)
                continue
            claims = self._told.setdefault(round, {}).setdefault(teller, {})
            if len(claims) < _MOST:
                claims.setdefault((peer, slot), said)

    def _compare(self, peer: int, slot: Slot, own: Said, teller: int, other: Said) -> None:
        self.counts["compared"] += 1
        if own.digest == other.digest or peer in self.guilty:
            return
        if not self.is_signed(peer, slot, other):
            self.counts["made up"] += 1
            self._faults[teller] += 1
            return
        self.guilty.add(peer)
        first, second = sorted((own, other), key=lambda said: said.digest)
        self.accuse(Conflict(peer, slot, first, second))


def successors(listeners: Sequence[int], rank: int, count: int) -> list[int]:
    """The next ``count`` of a circle of ranks after ``rank``; all others if there are no more."""
    if rank not in listeners:
        return []
    at = listeners.index(rank)
    return [listeners[(at + step) % len(listeners)] for step in range(1, min(count, len(listeners) - 1) + 1)]


def _fields(said: Said) -> tuple[bytes, bytes]:
    return said.digest, said.signature
