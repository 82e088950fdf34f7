"""What nodes say to one another when one joins by a snapshot, and the list of digests that a snapshot has.

One byte that no other message begins with, one for the type, the chain's tag, the fields; ``decode`` given
any bytes returns a message or raises FrameError. See ``newcomer`` for who says what when.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

from pydec.codec.wire import HASH_BYTES, Reader, blob, u32, u64
from pydec.consensus.block import Header
from pydec.consensus.certificate import MAX_CERTIFICATE_BYTES, QuorumCertificate
from pydec.consensus.light import MOST_HEADER_BYTES, MOST_STEP_BYTES
from pydec.consensus.messages import MAX_MESSAGE_BYTES, TAG_BYTES
from pydec.consensus.state import streams
from pydec.consensus.state.snapshot import MAX_SNAPSHOT_BYTES
from pydec.crypto.hashing import sha256
from pydec.errors import FrameError

OFFER = 0xA3  # first byte; see ``hello.ASK``
MOST_PIECES = MAX_SNAPSHOT_BYTES // streams.PIECE_BYTES + streams.PARTS
_HEAD = struct.Struct(f">BB{TAG_BYTES}s")


@dataclass(frozen=True)
class Manifest:
    """The digests of a snapshot's pieces, part by part; they have one root, which is the ``state_root``.

    Args:
        parts: of each part, the SHA-256 of its pieces, at least one, 32 bytes each.
    """

    parts: tuple[tuple[bytes, ...], ...]

    @classmethod
    def of(cls, parts: Sequence[Sequence[bytes]]) -> Manifest:
        """The manifest of these pieces, part by part."""
        return cls(tuple(tuple(map(sha256, pieces)) for pieces in parts))

    @cached_property
    def pieces(self) -> tuple[bytes, ...]:
        """Digests of all pieces in order."""
        return tuple(digest for part in self.parts for digest in part)

    def root(self) -> bytes:
        """The ``state_root`` of the state that the pieces are of."""
        return streams.root([sha256(*part) for part in self.parts])

    def encode(self) -> bytes:
        """Canonical bytes."""
        return b"".join(u32(len(part)) + b"".join(part) for part in self.parts)

    @classmethod
    def read(cls, reader: Reader) -> Manifest:
        """The manifest that comes next.

        Raises:
            FrameError: there is none, or it is of more than a snapshot may have.
        """
        parts, left = [], MOST_PIECES
        for _ in range(streams.PARTS):
            count = reader.count(left)
            if not count:
                raise FrameError("a part of a snapshot without pieces")
            parts.append(reader.pieces(count, HASH_BYTES))
            left -= count
        return cls(tuple(parts))


@dataclass(frozen=True, slots=True)
class Ask:
    """Asks for the steps that began ``epoch`` and later ones, some of them, then for an offer."""

    TYPE: ClassVar[int] = 1
    epoch: int

    def body(self) -> bytes:
        """The field."""
        return u64(self.epoch)

    @classmethod
    def read(cls, reader: Reader) -> Ask:
        """The field back."""
        return cls(reader.u64())


@dataclass(frozen=True, slots=True)
class Step:
    """An epoch step, encoded; see ``light``."""

    TYPE: ClassVar[int] = 2
    data: bytes

    def body(self) -> bytes:
        """The field."""
        return blob(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Step:
        """The field back."""
        return cls(reader.blob(MOST_STEP_BYTES))


@dataclass(frozen=True, slots=True)
class AskProof:
    """Asks for the header and certificate of a height."""

    TYPE: ClassVar[int] = 3
    height: int

    def body(self) -> bytes:
        """The field."""
        return u64(self.height)

    @classmethod
    def read(cls, reader: Reader) -> AskProof:
        """The field back."""
        return cls(reader.u64())


@dataclass(frozen=True, slots=True)
class Proof:
    """The header of a decided block and its commit certificate."""

    TYPE: ClassVar[int] = 4
    header: Header
    commit: QuorumCertificate

    def body(self) -> bytes:
        """The fields."""
        return blob(self.header.encode()) + blob(self.commit.encode())

    @classmethod
    def read(cls, reader: Reader) -> Proof:
        """The fields back."""
        header, commit = reader.blob(MOST_HEADER_BYTES), reader.blob(MAX_CERTIFICATE_BYTES)
        return cls(Header.decode(header), QuorumCertificate.decode(commit))


@dataclass(frozen=True, slots=True)
class Offer:
    """A decided block whose state the sender gives away, and the digests of its pieces."""

    TYPE: ClassVar[int] = 5
    proof: Proof
    manifest: Manifest

    @property
    def height(self) -> int:
        """Of the block."""
        return self.proof.header.height

    def body(self) -> bytes:
        """The fields."""
        return self.proof.body() + self.manifest.encode()

    @classmethod
    def read(cls, reader: Reader) -> Offer:
        """The fields back."""
        return cls(Proof.read(reader), Manifest.read(reader))


@dataclass(frozen=True, slots=True)
class AskPieces:
    """Asks for some pieces of the state after a height, from number ``first`` on."""

    TYPE: ClassVar[int] = 6
    height: int
    first: int

    def body(self) -> bytes:
        """The fields."""
        return u64(self.height) + u32(self.first)

    @classmethod
    def read(cls, reader: Reader) -> AskPieces:
        """The fields back."""
        return cls(reader.u64(), reader.u32())


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of the state after a height."""

    TYPE: ClassVar[int] = 7
    height: int
    number: int
    data: bytes

    def body(self) -> bytes:
        """The fields."""
        return u64(self.height) + u32(self.number) + blob(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Piece:
        """The fields back."""
        return cls(reader.u64(), reader.u32(), reader.blob(streams.PIECE_BYTES))


Message: TypeAlias = Ask | Step | AskProof | Proof | Offer | AskPieces | Piece
_TYPES: dict[int, type[Message]] = {
    message.TYPE: message for message in (Ask, Step, AskProof, Proof, Offer, AskPieces, Piece)
}


def encode(message: Message, chain_id: bytes) -> bytes:
    """Canonical bytes of a message on this chain."""
    return bytes((OFFER, message.TYPE)) + chain_id[:TAG_BYTES] + message.body()


def decode(data: bytes, chain_id: bytes) -> Message:
    """The message of these bytes. Nothing about it is verified but that it is whole.

    Raises:
        FrameError: they are no message, or one of another chain.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise FrameError(f"a message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    reader = Reader(data, "a message about snapshots")
    first, kind, tag = reader.unpack(_HEAD)
    if first != OFFER or kind not in _TYPES:
        raise FrameError(f"a message about snapshots begins with bytes {first} and {kind}, which none does")
    if tag != chain_id[:TAG_BYTES]:
        raise FrameError(f"a message of chain {tag.hex()}..., this is {chain_id[:TAG_BYTES].hex()}...")
    message = _TYPES[kind].read(reader)
    reader.end()
    return message
