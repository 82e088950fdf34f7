"""Blocks: a header that everything is hashed into, and opaque transactions."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydec.codec.wire import HASH_BYTES, ROUND_LIMIT, Reader, blob, blobs, optional
from pydec.consensus.certificate import MAX_CERTIFICATE_BYTES, QuorumCertificate
from pydec.errors import FrameError

VERSION = 1
MAX_BLOCK_BYTES = 1 << 20  # header and transactions, encoded; looked at before anything is hashed
NO_HASH = bytes(HASH_BYTES)
_HEAD = struct.Struct(">H32sQQ32s")
_TAIL = struct.Struct(">32s32s32sIH")
_LENGTH_BYTES = 4
_MAX_HEADER_BYTES = _HEAD.size + _TAIL.size + 5 + MAX_CERTIFICATE_BYTES


def transactions_root(transactions: Sequence[bytes]) -> bytes:
    """SHA-256 over the count and the SHA-256 of every transaction."""
    digest = hashlib.sha256(b"pydec.transactions.v1" + len(transactions).to_bytes(4, "big"))
    for transaction in transactions:
        digest.update(hashlib.sha256(transaction).digest())
    return digest.digest()


@dataclass(frozen=True)
class Header:
    """What a block's hash covers. No time, and no round but the one it was made in: a block that is proposed
    again in a later round is the same bytes.

    Args:
        chain_id: 32 bytes, the hash of the genesis.
        epoch: of the table that decides this height.
        height: from 1; the genesis is height 0.
        parent_hash: of the block before; the chain id at height 1.
        last_commit: the commit certificate of the block before, None at height 1.
        tx_root: ``transactions_root`` of the transactions.
        state_root: of the state after the block.
        next_validators_hash: digest of the table that decides the next height.
        origin_round: the round in which the block was made.
        origin_proposer: index of who made it.
        version: of this layout.
    """

    chain_id: bytes
    epoch: int
    height: int
    parent_hash: bytes
    last_commit: QuorumCertificate | None
    tx_root: bytes
    state_root: bytes
    next_validators_hash: bytes
    origin_round: int
    origin_proposer: int
    version: int = VERSION

    def encode(self) -> bytes:
        """Canonical bytes."""
        return self._encoded

    @cached_property
    def _encoded(self) -> bytes:
        commit = None if self.last_commit is None else self.last_commit.encode()
        head = _HEAD.pack(self.version, self.chain_id, self.epoch, self.height, self.parent_hash)
        roots = (self.tx_root, self.state_root, self.next_validators_hash)
        return head + optional(commit) + _TAIL.pack(*roots, self.origin_round, self.origin_proposer)

    def hash(self) -> bytes:
        """SHA-256 of the bytes behind a tag; the block's hash."""
        return self._hash

    @cached_property
    def _hash(self) -> bytes:
        return hashlib.sha256(b"pydec.block.v1" + self.encode()).digest()

    @classmethod
    def decode(cls, data: bytes) -> Header:
        """The header of these bytes.

        Raises:
            FrameError: they are none.
        """
        reader = Reader(data, "a block header")
        version, chain_id, epoch, height, parent_hash = reader.unpack(_HEAD)
        if version != VERSION:
            raise FrameError(f"a block header has version {version}, this pydec reads {VERSION}")
        commit = reader.optional(MAX_CERTIFICATE_BYTES)
        last_commit = None if commit is None else QuorumCertificate.decode(commit)
        tx_root, state_root, next_hash, origin_round, origin_proposer = reader.unpack(_TAIL)
        if origin_round >= ROUND_LIMIT:
            raise FrameError(f"a block header names round {origin_round}; rounds are below {ROUND_LIMIT}")
        reader.end()
        roots = tx_root, state_root, next_hash
        header = cls(chain_id, epoch, height, parent_hash, last_commit, *roots, origin_round, origin_proposer)
        header.__dict__["_encoded"] = data  # a header has one encoding
        return header


@dataclass(frozen=True, slots=True)
class Block:
    """A header and its transactions, which only the application reads."""

    header: Header
    transactions: tuple[bytes, ...]

    @property
    def height(self) -> int:
        """The header's."""
        return self.header.height

    def encode(self) -> bytes:
        """Canonical bytes."""
        return blob(self.header.encode()) + blobs(self.transactions)

    @classmethod
    def decode(cls, data: bytes) -> Block:
        """The block of these bytes. That the transactions are the header's is for ``check_body``.

        Raises:
            FrameError: they are none, or more than ``MAX_BLOCK_BYTES``.
        """
        if len(data) > MAX_BLOCK_BYTES:
            raise FrameError(f"a block of {len(data)} bytes, at most {MAX_BLOCK_BYTES} are allowed")
        reader = Reader(data, "a block")
        header = Header.decode(reader.blob(_MAX_HEADER_BYTES))
        count = reader.count(MAX_BLOCK_BYTES // _LENGTH_BYTES)
        transactions = tuple(reader.blob(MAX_BLOCK_BYTES) for _ in range(count))
        reader.end()
        return cls(header, transactions)

    def check_body(self) -> None:
        """Raises ValueError unless the header's root is that of the transactions."""
        if self.header.tx_root != transactions_root(self.transactions):
            raise ValueError(f"the transactions of the block at height {self.height} are not its header's")


def block_hash(block: Block) -> bytes:
    """A block's hash is its header's; the header covers the transactions."""
    return block.header.hash()


def room_for_transactions(header: Header) -> int:
    """How many bytes are left: transactions count with ``_LENGTH_BYTES`` more each, see ``packed_bytes``."""
    return MAX_BLOCK_BYTES - len(header.encode()) - 2 * _LENGTH_BYTES


def packed_bytes(transactions: Sequence[bytes]) -> int:
    """What transactions take of a block's room."""
    return sum(len(transaction) + _LENGTH_BYTES for transaction in transactions)
