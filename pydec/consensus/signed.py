"""What validators sign: one function builds the bytes, so nothing that is used later is left unsigned.

Source: the specification, section 2; pitfalls 5 and 12 of section 4 are why chain, epoch and height are in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

from pydec.codec.wire import HASH_BYTES, ROUND_LIMIT, Reader, checked, i32
from pydec.crypto.signing import SIGNATURE_BYTES
from pydec.errors import FrameError

_TAG = b"pydec.bft.v1"
_SIGNED = struct.Struct(">12sB32sQQI")
_HEAD = struct.Struct(">B32sQQI")


class Kind(IntEnum):
    """What a signed statement says."""

    PROPOSAL = 1  # "I lead this round and propose this block"
    PREPARE = 2  # "this block is justified in this round"
    COMMIT = 3  # "a quorum prepared this block in this round, and I had not given the round up"
    TIMEOUT = 4  # "I give this round up; the highest prepared round that I know is ..."

    __hash__ = int.__hash__  # every vote is looked up by its kind, and the hash of an Enum is slow


class Signer(Protocol):
    """Holds a private key; ``pydec.crypto.signing.SigningKey`` is one. Signing must be deterministic."""

    @property
    def public(self) -> bytes:
        """The 32 bytes that verify."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 bytes over ``message``."""
        ...


@lru_cache(maxsize=64)  # a quorum signs the same
def signed_bytes(kind: int, chain_id: bytes, epoch: int, height: int, round: int, body: bytes) -> bytes:
    """The bytes under a signature: tag, kind, chain, epoch, height, round, and the body.

    Args:
        kind: a ``Kind``.
        chain_id: 32 bytes.
        epoch, height: below 2^64.
        round: below 2^31.
        body: a block hash; of a TIMEOUT, the high round as 4 bytes.
    """
    return _SIGNED.pack(_TAG, kind, chain_id, epoch, height, round) + body


def timeout_body(high_round: int) -> bytes:
    """The body of a TIMEOUT: the round of the highest known prepare certificate, -1 for none."""
    return i32(high_round)


def body_bytes(kind: int) -> int:
    """How long the body of a statement is."""
    return 4 if kind == Kind.TIMEOUT else HASH_BYTES


@dataclass(frozen=True, slots=True, order=True)
class SignedStatement:
    """One thing that one key signed; raises ValueError if it cannot be one. The signature is not checked.

    Args:
        kind: what it says.
        chain_id: 32 bytes.
        epoch, height: below 2^64.
        round: below 2^31.
        body: 32 bytes, the block hash; of a TIMEOUT 4 bytes, the high round.
        signature: 64 bytes.
    """

    kind: Kind
    chain_id: bytes
    epoch: int
    height: int
    round: int
    body: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.chain_id) != HASH_BYTES or len(self.signature) != SIGNATURE_BYTES:
            raise ValueError(
                f"a statement has a chain id of {HASH_BYTES} bytes and a signature of {SIGNATURE_BYTES}, "
                f"got {len(self.chain_id)} and {len(self.signature)}"
            )
        if len(self.body) != (expected := body_bytes(self.kind)):
            raise ValueError(f"a {self.kind.name} has a body of {expected} bytes, got {len(self.body)}")
        if not (0 <= self.epoch < 1 << 64 and 0 <= self.height < 1 << 64 and 0 <= self.round < ROUND_LIMIT):
            raise ValueError(
                f"epoch {self.epoch}, height {self.height} or round {self.round} is out of range"
            )
        if self.kind is Kind.TIMEOUT and not -1 <= self.high_round <= self.round:
            raise ValueError(f"a TIMEOUT of round {self.round} cannot know of round {self.high_round}")

    @property
    def high_round(self) -> int:
        """What a TIMEOUT says; meaningless for the others."""
        return int.from_bytes(self.body[:4], "big", signed=True)

    def message(self) -> bytes:
        """The bytes that were signed."""
        return signed_bytes(self.kind, self.chain_id, self.epoch, self.height, self.round, self.body)

    def encode(self) -> bytes:
        """Canonical bytes."""
        head = _HEAD.pack(self.kind, self.chain_id, self.epoch, self.height, self.round)
        return head + self.body + self.signature

    @classmethod
    def read(cls, reader: Reader) -> SignedStatement:
        """Take one off the front.

        Raises:
            FrameError: the bytes are no statement.
        """
        kind = reader.u8()
        if kind not in Kind.__members__.values():
            raise FrameError(f"a signed statement has an unknown kind {kind}")
        chain_id, epoch, height, round = reader.take(HASH_BYTES), reader.u64(), reader.u64(), reader.round()
        body, signature = reader.take(body_bytes(kind)), reader.take(SIGNATURE_BYTES)
        return checked("a statement", cls, Kind(kind), chain_id, epoch, height, round, body, signature)
