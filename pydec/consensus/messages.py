"""What replicas say to one another: one version byte, one type byte, the chain's tag, then the fields.

``decode`` given any bytes returns a message or raises FrameError. The tag, the first 8 bytes of the chain id,
lets a receiver drop messages of another chain unread; the signatures cover the whole id.

Evidence travels as the transaction that carries it, and the head that the trainer piggy-backs on its gossip
is the HEAD message.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from pydec.codec.wire import HASH_BYTES, ROUND_LIMIT, Reader, blob, i32, optional, u16, u32, u64
from pydec.consensus.block import MAX_BLOCK_BYTES
from pydec.consensus.certificate import (
    MAX_CERTIFICATE_BYTES,
    MAX_TIMEOUT_CERTIFICATE_BYTES,
    VOTES,
    QuorumCertificate,
    TimeoutCertificate,
)
from pydec.consensus.signed import Kind
from pydec.crypto.signing import SIGNATURE_BYTES
from pydec.errors import FrameError

VERSION = 1
TAG_BYTES = 8
HEAD_BYTES = 2 + TAG_BYTES
MAX_MESSAGE_BYTES = MAX_BLOCK_BYTES + MAX_CERTIFICATE_BYTES + MAX_TIMEOUT_CERTIFICATE_BYTES + 1024
_VOTE = struct.Struct(">BQQI32sH64s")
_HEAD = struct.Struct(f">BB{TAG_BYTES}s")


def _qc(certificate: QuorumCertificate | None) -> bytes:
    return optional(None if certificate is None else certificate.encode())


def _tc(certificate: TimeoutCertificate | None) -> bytes:
    return optional(None if certificate is None else certificate.encode())


def _read_qc(reader: Reader) -> QuorumCertificate | None:
    data = reader.optional(MAX_CERTIFICATE_BYTES)
    return None if data is None else QuorumCertificate.decode(data)


def _read_tc(reader: Reader) -> TimeoutCertificate | None:
    data = reader.optional(MAX_TIMEOUT_CERTIFICATE_BYTES)
    return None if data is None else TimeoutCertificate.decode(data)


@dataclass(frozen=True, slots=True)
class Proposal:
    """The leader's block for a round; after round 0 with the round's justification (rules 2 and 3).

    Args:
        epoch, height, round: where.
        block: the block, encoded; its hash is what is signed.
        timeout: the timeout certificate of the round before, None in round 0.
        prepared: the prepare certificate of the highest round that ``timeout`` names, if it names one.
        signature: the leader's, 64 bytes.
    """

    TYPE: ClassVar[int] = 1
    epoch: int
    height: int
    round: int
    block: bytes
    timeout: TimeoutCertificate | None
    prepared: QuorumCertificate | None
    signature: bytes

    def body(self) -> bytes:
        """The fields."""
        head = u64(self.epoch) + u64(self.height) + u32(self.round)
        return head + _tc(self.timeout) + _qc(self.prepared) + self.signature + blob(self.block)

    @classmethod
    def read(cls, reader: Reader) -> Proposal:
        """The fields back."""
        epoch, height, round = reader.u64(), reader.u64(), reader.round()
        timeout, prepared = _read_tc(reader), _read_qc(reader)
        signature, block = reader.take(SIGNATURE_BYTES), reader.blob(MAX_BLOCK_BYTES)
        return cls(epoch, height, round, block, timeout, prepared, signature)


@dataclass(frozen=True, slots=True)
class Vote:
    """A PREPARE or COMMIT of the validator with that index."""

    TYPE: ClassVar[int] = 2
    kind: Kind
    epoch: int
    height: int
    round: int
    block_hash: bytes
    index: int
    signature: bytes

    def body(self) -> bytes:
        """The fields."""
        where = (self.kind, self.epoch, self.height, self.round)
        return _VOTE.pack(*where, self.block_hash, self.index, self.signature)

    @classmethod
    def read(cls, reader: Reader) -> Vote:
        """The fields back."""
        kind, epoch, height, round, block_hash, index, signature = reader.unpack(_VOTE)
        if kind not in VOTES or round >= ROUND_LIMIT:
            raise FrameError(f"a vote has kind {kind} and round {round}")
        return cls(VOTES[kind], epoch, height, round, block_hash, index, signature)


@dataclass(frozen=True, slots=True)
class Timeout:
    """A validator gives a round up.

    Args:
        epoch, height, round, index, signature: as in a vote.
        high_round: the highest prepared round that it knows, -1 for none.
        prepared: the certificate of that round.
        timeout: the timeout certificate of the round before, None in round 0.
    """

    TYPE: ClassVar[int] = 3
    epoch: int
    height: int
    round: int
    high_round: int
    index: int
    signature: bytes
    prepared: QuorumCertificate | None
    timeout: TimeoutCertificate | None

    def body(self) -> bytes:
        """The fields."""
        head = u64(self.epoch) + u64(self.height) + u32(self.round) + i32(self.high_round)
        return head + u16(self.index) + self.signature + _qc(self.prepared) + _tc(self.timeout)

    @classmethod
    def read(cls, reader: Reader) -> Timeout:
        """The fields back."""
        epoch, height, round, high_round = reader.u64(), reader.u64(), reader.round(), reader.i32()
        index, signature = reader.u16(), reader.take(SIGNATURE_BYTES)
        return cls(epoch, height, round, high_round, index, signature, _read_qc(reader), _read_tc(reader))


@dataclass(frozen=True, slots=True)
class NewRound:
    """A round is over: its timeout certificate, and the prepare certificate of its highest round (rule 8)."""

    TYPE: ClassVar[int] = 4
    height: int
    timeout: TimeoutCertificate
    prepared: QuorumCertificate | None

    def body(self) -> bytes:
        """The fields."""
        return u64(self.height) + blob(self.timeout.encode()) + _qc(self.prepared)

    @classmethod
    def read(cls, reader: Reader) -> NewRound:
        """The fields back."""
        height, timeout = reader.u64(), reader.blob(MAX_TIMEOUT_CERTIFICATE_BYTES)
        return cls(height, TimeoutCertificate.decode(timeout), _read_qc(reader))


@dataclass(frozen=True, slots=True)
class Decision:
    """A decided height: the block, encoded, and its commit certificate. Also what the ledger file stores."""

    TYPE: ClassVar[int] = 5
    height: int
    commit: QuorumCertificate
    block: bytes

    def body(self) -> bytes:
        """The fields."""
        return u64(self.height) + blob(self.commit.encode()) + blob(self.block)

    @classmethod
    def read(cls, reader: Reader) -> Decision:
        """The fields back."""
        height, commit = reader.u64(), reader.blob(MAX_CERTIFICATE_BYTES)
        return cls(height, QuorumCertificate.decode(commit), reader.blob(MAX_BLOCK_BYTES))


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """The sender has decided everything below this height and wants to go on from there."""

    TYPE: ClassVar[int] = 6
    height: int

    def body(self) -> bytes:
        """The field."""
        return u64(self.height)

    @classmethod
    def read(cls, reader: Reader) -> SyncRequest:
        """The field back."""
        return cls(reader.u64())


@dataclass(frozen=True, slots=True)
class GetBlock:
    """Asks for the block of this hash, which the sender knows to be prepared or committed at the height."""

    TYPE: ClassVar[int] = 7
    height: int
    block_hash: bytes

    def body(self) -> bytes:
        """The fields."""
        return u64(self.height) + self.block_hash

    @classmethod
    def read(cls, reader: Reader) -> GetBlock:
        """The fields back."""
        return cls(reader.u64(), reader.take(HASH_BYTES))


@dataclass(frozen=True, slots=True)
class BlockBody:
    """Answers GetBlock with the encoded block."""

    TYPE: ClassVar[int] = 8
    height: int
    block: bytes

    def body(self) -> bytes:
        """The fields."""
        return u64(self.height) + blob(self.block)

    @classmethod
    def read(cls, reader: Reader) -> BlockBody:
        """The fields back."""
        return cls(reader.u64(), reader.blob(MAX_BLOCK_BYTES))


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction for everybody's pool."""

    TYPE: ClassVar[int] = 9
    data: bytes

    def body(self) -> bytes:
        """The field."""
        return blob(self.data)

    @classmethod
    def read(cls, reader: Reader) -> Transaction:
        """The field back."""
        return cls(reader.blob(MAX_BLOCK_BYTES))


@dataclass(frozen=True, slots=True)
class Head:
    """The last height that the sender has decided, and its block: an idle peer learns that it is behind."""

    TYPE: ClassVar[int] = 10
    epoch: int
    height: int
    block_hash: bytes

    def body(self) -> bytes:
        """The fields."""
        return u64(self.epoch) + u64(self.height) + self.block_hash

    @classmethod
    def read(cls, reader: Reader) -> Head:
        """The fields back."""
        return cls(reader.u64(), reader.u64(), reader.take(HASH_BYTES))


Message: TypeAlias = (
    Proposal | Vote | Timeout | NewRound | Decision | SyncRequest | GetBlock | BlockBody | Transaction | Head
)
_TYPES: dict[int, type[Message]] = {
    message.TYPE: message
    for message in (
        Proposal, Vote, Timeout, NewRound, Decision, SyncRequest, GetBlock, BlockBody, Transaction, Head,
    )
}  # fmt: skip


def encode(message: Message, chain_id: bytes) -> bytes:
    """Canonical bytes of a message on this chain."""
    return bytes((VERSION, message.TYPE)) + chain_id[:TAG_BYTES] + message.body()


def decode(data: bytes, chain_id: bytes) -> Message:
    """The message of these bytes. Nothing about it is verified but that it is whole.

    Raises:
        FrameError: they are no message, or one of another chain.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise FrameError(f"a message of {len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    if len(data) < HEAD_BYTES:
        raise FrameError(f"a ledger message ends after {len(data)} bytes, in its head")
    version, kind, tag = _HEAD.unpack_from(data)
    if version != VERSION:
        raise FrameError(f"a ledger message has version {version}, this pydec speaks {VERSION}")
    if tag != chain_id[:TAG_BYTES]:
        raise FrameError(f"a message of chain {tag.hex()}..., this is {chain_id[:TAG_BYTES].hex()}...")
    if kind not in _TYPES:
        raise FrameError(f"a ledger message has an unknown type {kind}")
    reader = Reader(data, "a ledger message", HEAD_BYTES)
    message = _TYPES[kind].read(reader)
    reader.end()
    return message
