"""What peers of the store say to one another: one fixed head, then bytes; anything else is refused.

    offset  bytes
    0       1     format, 1
    1       1     kind, see ``Kind``
    2       2     zero
    4       4     request: a number of the asker's, which every answer repeats; REPORT: the rank it is about
    8       32    digest: the object, or the root of the manifest, that it is about
    40      4     offset of the bytes that follow; CHALLENGE: of the range; REPORT: number of its shard
    44      4     length of the whole; CHALLENGE: of the range
    48            DATA: bytes; CHALLENGE: a nonce of 32 bytes; PROOF: a digest; SIGNED: a signature;
                  REPORT: the sender's epoch, 8 bytes, and its signature; STANDING: see ``standing.py``

Integers are little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from pydec.comm.buffers import POST_LIMIT
from pydec.crypto.signing import SIGNATURE_BYTES
from pydec.errors import FrameError
from pydec.store.manifest import MOST_MANIFEST_BYTES
from pydec.store.objects import MOST_BYTES

FORMAT = 1
NONCE_BYTES = PROOF_BYTES = 32
_HEAD = struct.Struct("<BBHI32sII")
PIECE_BYTES = POST_LIMIT - _HEAD.size


class Kind(IntEnum):
    """What a message is."""

    OBJECT = 1
    """Send me this object."""
    MANIFEST = 2
    """Send me the manifest of this root."""
    DATA = 3
    """A piece of it."""
    LACK = 4
    """It is not here, or damaged, or not for you."""
    CHALLENGE = 5
    """Prove that you hold this object: hash this range of it under this nonce."""
    PROOF = 6
    """The hash."""
    SIGNED = 7
    """After the last piece of an object: the sender's signature, see ``serving.py``."""
    REPORT = 8
    """A peer does not prove that it holds an object, see ``challenges.py``."""
    STANDING = 9
    """How far the sender holds a data set, see ``standing.py``."""


SHARE_BYTES = 8 + SIGNATURE_BYTES
STANDING_BYTES = 33
_BODIES = {
    Kind.PROOF: PROOF_BYTES,
    Kind.SIGNED: SIGNATURE_BYTES,
    Kind.REPORT: SHARE_BYTES,
    Kind.STANDING: STANDING_BYTES,
}


@dataclass(frozen=True)
class Message:
    """One message; see the head of this module.

    Raises:
        FrameError: values that do not go together.
    """

    kind: Kind
    request: int
    digest: bytes
    offset: int = 0
    total: int = 0
    body: bytes = b""

    def __post_init__(self) -> None:
        kind, size = self.kind, len(self.body)
        if kind is Kind.DATA:
            right = 0 < size <= PIECE_BYTES and self.offset + size <= self.total <= MOST_MANIFEST_BYTES
        elif kind is Kind.CHALLENGE:
            right = size == NONCE_BYTES and self.total > 0 and self.offset + self.total <= MOST_BYTES
        else:
            right = size == _BODIES.get(kind, 0) and self.total == 0
            right &= self.offset == 0 or kind is Kind.REPORT
        if not right:
            raise FrameError(
                f"a message {kind.name} of the store with offset {self.offset}, length {self.total} and "
                f"{size} bytes"
            )

    def encode(self) -> bytes:
        """The bytes."""
        return (
            _HEAD.pack(FORMAT, self.kind, 0, self.request, self.digest, self.offset, self.total) + self.body
        )

    @classmethod
    def decode(cls, data: bytes) -> Message:
        """The message of exactly these bytes.

        Raises:
            FrameError: they are none.
        """
        if len(data) < _HEAD.size:
            raise FrameError(f"a message of the store has at least {_HEAD.size} bytes, got {len(data)}")
        version, kind, zero, request, digest, offset, total = _HEAD.unpack_from(data)
        if version != FORMAT or zero or kind not in Kind._value2member_map_:
            raise FrameError(f"a message of the store begins with {data[:4].hex()}")
        return cls(Kind(kind), request, digest, offset, total, data[_HEAD.size :])
