"""Sealing messages of one direction and stream: every byte hidden, every byte and its place authenticated.

====== ====  ==================================================
offset size  field of the header, which is associated data
====== ====  ==================================================
0      1     version, 1
1      1     suite, see ``Suite``
2      1     stream
3      1     flags; 1: padded
4      4     generation of the key
8      8     sequence number of the first record
16     4     epoch of the view
20     4     sender's rank
24     4     receiver's rank
28     4     tag; ``POSTED`` for a posted message, ``HANDSHAKE`` for one that renews keys
32     8     bytes of the payload, or of the payload and its padding
====== ====  ==================================================

Little-endian. Records follow: at most 16 MiB of payload each, then 16 bytes of its authentication tag. The
number of a record and whether it is the last are associated data too, so that none can be left out. A padded
message begins with a record of 8 bytes that holds the payload's length, and is followed by zeros up to a
length that many share.

A nonce is the key's initial vector xor the sequence number (RFC 8446, section 5.3); each record takes one
number, and a key lives in one process alone, so none is ever used twice: a restored process makes new
keys, and a forked one is refused. After so many records, bytes or seconds the key makes its successor and
is forgotten; a new handshake (``renew``) makes keys that do not follow from it, of a session of their own.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from pydec.crypto.handshake import expand
from pydec.crypto.suites import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Suite, cipher
from pydec.errors import FrameError, SetupError

VERSION = 1
POSTED, HANDSHAKE = (1 << 32) - 1, (1 << 32) - 2
RECORD_BYTES = 16 << 20
WINDOW = 1 << 14
"""How far a message may be behind the newest of its stream: some rounds of a large model's buckets, which a
receiver takes in its own order. The 64 of RFC 4303 are for packets in the order of a network."""
_HEADER = struct.Struct("<BBBBIQIIIIQ")
_PLACE = struct.Struct("<IB")  # number of the record, whether it is the last
_LENGTH = struct.Struct("<Q")
HEADER_BYTES = _HEADER.size
OVERHEAD_BYTES = HEADER_BYTES + _LENGTH.size + 2 * TAG_BYTES
"""What sealing adds to a message of one record, padding left aside."""
_PADDED = 1
_SPAN = 1 << 16  # generations of one session's keys; those of session n begin at n times as many
_AHEAD = 8  # generations that a receiver follows at once; senders go one by one
_INFO = b"pydec.v1 | "


class Unsealed(FrameError):
    """A message that is refused.

    Args:
        kind: one word for counting: ``forged``, ``replayed``, ``reordered``, ``misplaced``, ``truncated`` or
            ``stale``.
        why: in words.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(f"{kind}: {why}")
        self.kind = kind


@dataclass(frozen=True)
class Limits:
    """When a key makes its successor; whatever comes first.

    Args:
        records, n_bytes: sealed with it.
        age_s: seconds since its first use.
        fresh_s: seconds after which two peers shake hands anew.
        generations: of a stream's keys after which they do, too.
    """

    records: int = 1 << 32
    n_bytes: int = 64 << 30
    age_s: float = 3600.0
    fresh_s: float = 3600.0
    generations: int = 10


@dataclass(frozen=True)
class Way:
    """Where messages of one direction and stream go; all of it is in every header."""

    suite: Suite
    stream: int
    epoch: int
    sender: int
    receiver: int


class _Key:
    """The key of one generation."""

    def __init__(self, way: Way, secret: bytes, generation: int) -> None:
        material = expand(secret, _INFO + b"key", KEY_BYTES + NONCE_BYTES)
        self.tool: Any = cipher(way.suite, material[:KEY_BYTES])
        self._vector = int.from_bytes(material[KEY_BYTES:], "big")
        self.generation = generation
        self._secret = secret
        self._way = way

    def nonce(self, sequence: int) -> bytes:
        return (self._vector ^ sequence).to_bytes(NONCE_BYTES, "big")

    def successor(self) -> _Key:
        if (self.generation + 1) % _SPAN == 0:
            raise SetupError(f"the keys of a session are used up after {_SPAN} generations; start again")
        return _Key(self._way, expand(self._secret, _INFO + b"ratchet"), self.generation + 1)

    def after(self, ahead: int) -> _Key:
        key = self
        for _ in range(ahead):
            key = key.successor()
        return key


class _End:
    """What both ends have: their process, and no way into another one."""

    def __init__(self, way: Way, secret: bytes) -> None:
        self.way = way
        self._key = self._first(secret, 0)
        self._next: _Key | None = None  # of a new session, until its first message
        self._process = os.getpid()

    def _first(self, secret: bytes, session: int) -> _Key:
        # A secret of its own: the key of a stream that rests must not lead to the newer ones of the others.
        return _Key(self.way, expand(secret, _INFO + b"stream %d" % self.way.stream), session * _SPAN)

    def renew(self, secret: bytes, session: int) -> None:
        """Go over to keys of a new handshake, with the next message; any thread may say so.

        Args:
            secret: 32 bytes, fresh.
            session: counted from 1; higher than that before.
        """
        self._check_process()
        self._next = self._first(secret, session)

    @property
    def ratchets(self) -> int:
        """How many times the key has made its successor since the handshake."""
        return self._key.generation % _SPAN

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise SetupError(
                f"the keys of process {self._process} are in process {os.getpid()}, which was forked from it "
                "and would seal two messages with one nonce; open the peer after the fork"
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError("session keys are neither copied nor stored: a restored one would use a nonce twice")


class Sealer(_End):
    """Seals one direction of one stream; one thread at a time uses it.

    Args:
        way: where the messages go.
        secret: 32 bytes, fresh from a handshake.
        limits: of a key.
        pad: whether to hide lengths, see ``padded``.
        clock: seconds.
    """

    def __init__(
        self,
        way: Way,
        secret: bytes,
        limits: Limits = Limits(),  # frozen
        *,
        pad: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(way, secret)
        self._limits, self._pad, self._clock = limits, pad, clock
        self._sequence = 0
        self._begin()

    def _begin(self) -> None:
        self._records = self._n_bytes = 0
        self._since_s = self._clock()

    def size(self, n_bytes: int) -> int:
        """Bytes of a sealed message with a payload of ``n_bytes``."""
        return sealed_bytes(padded(n_bytes), pad=True) if self._pad else sealed_bytes(n_bytes)

    def seal_into(self, tag: int, payload: memoryview, out: memoryview) -> None:
        """Seal a message: one pass over the payload, from where it lies to where it is sent from.

        Args:
            tag: of the message.
            payload: bytes; not changed.
            out: ``size(len(payload))`` bytes.

        Raises:
            SetupError: this process was forked from the one that made the keys.
        """
        self._check_process()
        limits, renewed = self._limits, self._next
        if renewed is not None:
            self._key, self._next = renewed, None
            self._begin()
        elif (
            self._records >= limits.records
            or self._n_bytes >= limits.n_bytes
            or self._clock() - self._since_s >= limits.age_s
        ):
            self._key = self._key.successor()
            self._begin()
        way, key, n = self.way, self._key, len(payload)
        body = padded(n) if self._pad else n
        where = (way.epoch, way.sender, way.receiver, tag, body)
        flags = _PADDED if self._pad else 0
        header = _HEADER.pack(VERSION, way.suite, way.stream, flags, key.generation, self._sequence, *where)
        out[:HEADER_BYTES] = header
        at = HEADER_BYTES
        for number, (start, end, last) in enumerate(_records(body, pad=self._pad)):
            plain: Any = payload[start:end]
            if start < 0:
                plain = _LENGTH.pack(n)
            elif end > n:
                plain = bytes(plain).ljust(end - start, b"\0")
            to = at + end - start + TAG_BYTES
            nonce = key.nonce(self._sequence)
            self._sequence += 1  # before it is used: whatever happens now, the number is not used again
            self._records += 1
            key.tool.encrypt_into(nonce, plain, header + _PLACE.pack(number, last), out[at:to])
            at = to
        self._n_bytes += body


class Opener(_End):
    """Opens what a ``Sealer`` sealed: each message once, those with one tag in the order sent.

    Args:
        way: where the messages come from.
        secret: of the sealer.
    """

    def __init__(self, way: Way, secret: bytes) -> None:
        super().__init__(way, secret)
        self._before: _Key | None = None
        self._newest = -1
        self._seen: dict[int, int] = {}  # tag: sequence of its newest message, the newest last

    def open_into(self, tag: int, message: memoryview, into: memoryview) -> int:
        """Open a message and return the bytes of its payload, which are the first ones of ``into``.

        Args:
            tag: that it must have.
            message: as it arrived.
            into: where the payload goes; holds anything after a refusal.

        Raises:
            Unsealed: it is not one that the peer has sealed for this place, or not for the first time.
            FrameError: its payload is longer than ``into``; nothing is wrong with it else.
            SetupError: this process was forked from the one that made the keys.
        """
        self._check_process()
        header, sequence, body, pad, key = self._header(tag, message)
        n = body
        at = HEADER_BYTES
        for number, (start, end, last) in enumerate(_records(body, pad=pad)):
            to = at + end - start + TAG_BYTES
            straight = start >= 0 and end <= min(n, len(into))
            part = into[start:end] if straight else memoryview(bytearray(end - start))
            self._open(key, sequence + number, message[at:to], header + _PLACE.pack(number, last), part)
            if start < 0:
                n = _LENGTH.unpack(part)[0]
                if n > body or padded(n) != body:
                    raise Unsealed("forged", f"{n} bytes padded to {body}")
            if n > len(into):
                self._accept(tag, sequence, sequence, key)
                raise FrameError(f"a sealed message of {n} bytes where at most {len(into)} fit")
            if not straight and start >= 0:
                into[start:n] = part[: max(0, n - start)]
            at = to
        self._accept(tag, sequence, sequence + number, key)
        return n

    def _header(self, tag: int, message: memoryview) -> tuple[bytes, int, int, bool, _Key]:
        if len(message) < HEADER_BYTES + TAG_BYTES:
            raise Unsealed(
                "truncated", f"{len(message)} bytes are no sealed message; is the sender --secure off?"
            )
        header = bytes(message[:HEADER_BYTES])
        version, suite, stream, flags, generation, sequence, *rest = _HEADER.unpack(header)
        epoch, sender, receiver, told, body = rest
        way = self.way
        if version != VERSION or suite != way.suite or flags > _PADDED:
            raise Unsealed("forged", "no header of a sealed message; is the sender --secure off?")
        here = (way.stream, way.epoch, way.sender, way.receiver, tag)
        if (stream, epoch, sender, receiver, told) != here:
            raise Unsealed(
                "misplaced",
                f"sealed by rank {sender} for rank {receiver}, stream {stream}, tag {told}; it arrived from "
                f"rank {way.sender} at rank {way.receiver}, stream {way.stream}, tag {tag}",
            )
        if body > len(message) or sealed_bytes(body, pad=bool(flags)) != len(message):
            raise Unsealed(
                "truncated", f"{len(message)} bytes arrived of a message with {body} bytes of payload"
            )
        if sequence <= self._newest - WINDOW:
            raise Unsealed("replayed", f"message {sequence} is {self._newest - sequence} behind the newest")
        seen = self._seen.get(tag, -1)
        if sequence == seen:
            raise Unsealed("replayed", f"message {sequence} has been here")
        if sequence < seen:
            raise Unsealed("reordered", f"message {sequence} after {seen}, both with tag {tag}")
        return header, sequence, body, bool(flags), self._key_of(generation)

    def _key_of(self, generation: int) -> _Key:
        for key in (self._next, self._key, self._before):  # of late messages the sender's key may be older
            if key is not None and key.generation // _SPAN == generation // _SPAN:
                ahead = generation - key.generation
                if 0 <= ahead <= _AHEAD:
                    return key.after(ahead)
        raise Unsealed("stale", f"key {generation}, this rank has come to {self._key.generation}")

    def _open(self, key: _Key, sequence: int, sealed: memoryview, place: bytes, into: memoryview) -> None:
        from cryptography.exceptions import InvalidTag

        try:
            key.tool.decrypt_into(key.nonce(sequence), sealed, place, into)
        except InvalidTag:
            raise Unsealed("forged", f"message {sequence} is not what was sealed") from None

    def _accept(self, tag: int, sequence: int, newest: int, key: _Key) -> None:
        if key.generation > self._key.generation:
            self._before, self._key = self._key, key
            if self._next is not None and key.generation >= self._next.generation:
                self._next = None
        self._newest = max(self._newest, newest)
        self._seen.pop(tag, None)
        self._seen[tag] = sequence
        while len(self._seen) > 1:
            oldest = next(iter(self._seen))
            if self._seen[oldest] > self._newest - WINDOW:
                break
            del self._seen[oldest]


def _records(body: int, *, pad: bool) -> Iterator[tuple[int, int, bool]]:
    """The records of a message: (start, end, whether it is the last); that of the length starts below 0."""
    if pad:
        yield -_LENGTH.size, 0, body == 0
    elif body == 0:
        yield 0, 0, True
    for start in range(0, body, RECORD_BYTES):
        end = min(body, start + RECORD_BYTES)
        yield start, end, end == body


def tag_of(message: bytes) -> int:
    """The tag in the header of a sealed message, which ``Opener`` checks; 0 if it is too short for one."""
    return int(_HEADER.unpack_from(message)[9]) if len(message) >= HEADER_BYTES else 0


def padded(n_bytes: int) -> int:
    """The next length whose binary digits end in enough zeros; at most 12 % more, far less for large ones.

    Of the length of a message with n bytes it shows O(log log n) bits.

    Source: Nikitin et al., "Reducing metadata leakage from encrypted files and communication with PURBs",
    PoPETs 2019(4), section 4.2 (Padme).
    """
    if n_bytes < 2:
        return n_bytes
    exponent = n_bytes.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (n_bytes + mask) & ~mask


def sealed_bytes(body: int, *, pad: bool = False) -> int:
    """Bytes of a sealed message.

    Args:
        body: bytes of its payload, padding included.
        pad: whether it has a record with the payload's length.
    """
    records = -(-body // RECORD_BYTES)
    if pad:
        return HEADER_BYTES + _LENGTH.size + TAG_BYTES + body + records * TAG_BYTES
    return HEADER_BYTES + body + max(1, records) * TAG_BYTES
