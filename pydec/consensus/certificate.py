"""Certificates: signatures of a quorum over one statement, checked in one fixed order, signatures last.

A certificate is verified against the table of its own height; the caller says what it must be about. Cheap
checks come first and the first bad signature ends the work, so garbage costs at most one verification.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from pydec.codec.wire import HASH_BYTES, ROUND_LIMIT, Reader, u16, u32, u64
from pydec.consensus.signed import Kind, SignedStatement, signed_bytes, timeout_body
from pydec.consensus.validators import MAX_VALIDATORS, ValidatorTable
from pydec.crypto.signing import SIGNATURE_BYTES, verify
from pydec.errors import FrameError, SignatureError

VOTES = {int(kind): kind for kind in (Kind.PREPARE, Kind.COMMIT)}
"""Kinds that a quorum certificate may be of, by number."""
_HEAD = struct.Struct(f">BQQI{HASH_BYTES}sH")  # kind, epoch, height, round, block hash, bytes of the bitmap
MAX_CERTIFICATE_BYTES = 64 + (MAX_VALIDATORS + 7) // 8 + MAX_VALIDATORS * SIGNATURE_BYTES
MAX_TIMEOUT_CERTIFICATE_BYTES = 24 + MAX_VALIDATORS * (6 + SIGNATURE_BYTES)

Verify = Callable[[bytes, bytes, bytes], None]


class CertificateError(ValueError):
    """A certificate that proves nothing, and why. Replicas turn it into a report about its sender."""


class Verifier:
    """Verifies signatures and remembers the good ones, so that one signature costs once however it comes.

    Args:
        verify: raises SignatureError; ``pydec.crypto.signing.verify`` outside of simulations.
        capacity: how many to remember; the oldest are forgotten first.
    """

    __slots__ = ("_capacity", "_known", "_verify")

    def __init__(self, verify: Verify = verify, capacity: int = 8192) -> None:
        self._verify, self._capacity = verify, capacity
        self._known: dict[bytes, tuple[bytes, bytes]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def check(self, key: bytes, message: bytes, signature: bytes) -> None:
        """Raises SignatureError unless ``signature`` is the key's over the message."""
        if self._known.get(signature) == (key, message):
            return
        self._verify(key, message, signature)
        self.trust(key, message, signature)

    def trust(self, key: bytes, message: bytes, signature: bytes) -> None:
        """Take a signature for good: this node has made it, and certificates will bring it back."""
        if len(self._known) >= self._capacity:
            del self._known[next(iter(self._known))]
        self._known[signature] = (key, message)


def to_bitmap(indices: Iterable[int], size: int) -> bytes:
    """Index i is bit i modulo 8 (lowest first) of byte i // 8."""
    bits = 0
    for index in indices:
        bits |= 1 << index
    return bits.to_bytes((size + 7) // 8, "little")


def from_bitmap(bitmap: bytes) -> list[int]:
    """The indices in increasing order."""
    bits, indices = int.from_bytes(bitmap, "little"), []
    while bits:
        low = bits & -bits
        indices.append(low.bit_length() - 1)
        bits ^= low
    return indices


@dataclass(frozen=True)
class QuorumCertificate:
    """A quorum's PREPAREs or COMMITs of one block in one round.

    Args:
        kind: PREPARE or COMMIT.
        epoch, height, round: of the votes.
        block_hash: 32 bytes.
        bitmap: who signed, one bit for each validator of the table.
        signatures: 64 bytes each, in index order.
    """

    kind: Kind
    epoch: int
    height: int
    round: int
    block_hash: bytes
    bitmap: bytes
    signatures: tuple[bytes, ...]

    @classmethod
    def of(
        cls,
        kind: Kind,
        table: ValidatorTable,
        height: int,
        round: int,
        block_hash: bytes,
        votes: dict[int, bytes],
    ) -> QuorumCertificate:
        """The certificate of these signatures by index."""
        order = sorted(votes)
        signatures = tuple(votes[index] for index in order)
        return cls(kind, table.epoch, height, round, block_hash, to_bitmap(order, len(table)), signatures)

    def signers(self) -> list[int]:
        """Indices of those that signed."""
        return from_bitmap(self.bitmap)

    def verify(
        self, chain_id: bytes, table: ValidatorTable, height: int, kind: Kind, verifier: Verifier
    ) -> None:
        """Check that a quorum of the table signed this at that height.

        Raises:
            CertificateError: it proves nothing; the message says what is wrong.
        """
        if (self.kind, self.epoch, self.height) != (kind, table.epoch, height):
            raise CertificateError(
                f"{self.kind.name} certificate of epoch {self.epoch}, height {self.height}, not {kind.name} "
                f"of {table.epoch}, {height}"
            )
        if len(self.bitmap) != (len(table) + 7) // 8:
            raise CertificateError(f"a bitmap of {len(self.bitmap)} bytes for {len(table)} validators")
        signers = from_bitmap(self.bitmap)
        if signers and signers[-1] >= len(table):
            raise CertificateError(f"signer {signers[-1]} of {len(table)} validators")
        if len(signers) != len(self.signatures):
            raise CertificateError(f"{len(self.signatures)} signatures of {len(signers)} signers")
        if not table.quorum(table.weight(signers)):
            raise CertificateError(f"stake {table.weight(signers)} of {table.total} is no quorum")
        message = signed_bytes(kind, chain_id, self.epoch, height, self.round, self.block_hash)
        for index, signature in zip(signers, self.signatures, strict=True):
            _check(table, index, message, signature, verifier)

    def statements(self, chain_id: bytes) -> list[tuple[int, SignedStatement]]:
        """Every signer's index and statement; of a verified certificate."""
        head = (self.kind, chain_id, self.epoch, self.height, self.round, self.block_hash)
        pairs = zip(self.signers(), self.signatures, strict=True)
        return [(index, SignedStatement(*head, signature)) for index, signature in pairs]

    def encode(self) -> bytes:
        """Canonical bytes."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:  # one certificate stands in a decision, in headers and in every proposal
        where = (self.kind, self.epoch, self.height, self.round, self.block_hash)
        head = _HEAD.pack(*where, len(self.bitmap))
        parts = (head, self.bitmap, u16(len(self.signatures)), *self.signatures)
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> QuorumCertificate:
        """The certificate of these bytes, not verified.

        Raises:
            FrameError: they are none.
        """
        reader = Reader(data, "a quorum certificate")
        kind, epoch, height, round, block_hash, bitmap_bytes = reader.unpack(_HEAD)
        if kind not in VOTES or round >= ROUND_LIMIT:
            raise FrameError(
                f"a quorum certificate has kind {kind}, expected PREPARE or COMMIT, in round {round}"
            )
        bitmap = reader.take(bitmap_bytes)
        signatures = reader.pieces(_few(reader.u16()), SIGNATURE_BYTES)
        reader.end()
        certificate = cls(VOTES[kind], epoch, height, round, block_hash, bitmap, signatures)
        certificate.__dict__["_encoded"] = data  # a certificate has one encoding
        return certificate


@dataclass(frozen=True, slots=True)
class TimeoutCertificate:
    """A quorum gave a round up, each saying the highest prepared round that it knew.

    Args:
        epoch, height, round: of the timeouts.
        votes: (index, high round, signature), indices increasing.
    """

    epoch: int
    height: int
    round: int
    votes: tuple[tuple[int, int, bytes], ...]

    @property
    def high_round(self) -> int:
        """The highest round that any of them knew to be prepared, -1 for none: high(TC)."""
        return max((vote[1] for vote in self.votes), default=-1)

    def verify(self, chain_id: bytes, table: ValidatorTable, height: int, verifier: Verifier) -> None:
        """Check that a quorum of the table gave the round up.

        Raises:
            CertificateError: it proves nothing; the message says what is wrong.
        """
        if (self.epoch, self.height) != (table.epoch, height):
            raise CertificateError(
                f"a timeout certificate of epoch {self.epoch}, height {self.height}, not {table.epoch}, "
                f"{height}"
            )
        indices = [vote[0] for vote in self.votes]
        if any(a >= b for a, b in itertools.pairwise(indices)):
            raise CertificateError("the signers of a timeout certificate do not increase")
        if indices and indices[-1] >= len(table):
            raise CertificateError(f"signer {indices[-1]} of {len(table)} validators")
        if not table.quorum(table.weight(indices)):
            raise CertificateError(f"stake {table.weight(indices)} of {table.total} is no quorum")
        for index, high_round, _ in self.votes:
            if not -1 <= high_round <= self.round:
                raise CertificateError(
                    f"signer {index} claims round {high_round} in a timeout of {self.round}"
                )
        for index, high_round, signature in self.votes:
            body = timeout_body(high_round)
            message = signed_bytes(Kind.TIMEOUT, chain_id, self.epoch, height, self.round, body)
            _check(table, index, message, signature, verifier)

    def statements(self, chain_id: bytes) -> list[tuple[int, SignedStatement]]:
        """Every signer's index and statement; of a verified certificate."""
        head = (Kind.TIMEOUT, chain_id, self.epoch, self.height, self.round)
        return [(index, SignedStatement(*head, timeout_body(high), sig)) for index, high, sig in self.votes]

    def encode(self) -> bytes:
        """Canonical bytes."""
        head = u64(self.epoch) + u64(self.height) + u32(self.round) + u16(len(self.votes))
        return head + b"".join(u16(index) + timeout_body(high) + sig for index, high, sig in self.votes)

    @classmethod
    def decode(cls, data: bytes) -> TimeoutCertificate:
        """The certificate of these bytes, not verified.

        Raises:
            FrameError: they are none.
        """
        reader = Reader(data, "a timeout certificate")
        epoch, height, round, count = reader.u64(), reader.u64(), reader.round(), _few(reader.u16())
        votes = tuple((reader.u16(), reader.i32(), reader.take(SIGNATURE_BYTES)) for _ in range(count))
        reader.end()
        return cls(epoch, height, round, votes)


def _few(count: int) -> int:
    if count > MAX_VALIDATORS:
        raise FrameError(f"a certificate claims {count} signatures, at most {MAX_VALIDATORS} are allowed")
    return count


def _check(table: ValidatorTable, index: int, message: bytes, signature: bytes, verifier: Verifier) -> None:
    if not table[index].stake:
        raise CertificateError(f"signer {index} has no stake")
    try:
        verifier.check(table[index].key, message, signature)
    except SignatureError:
        raise CertificateError(f"signer {index} did not sign it") from None
