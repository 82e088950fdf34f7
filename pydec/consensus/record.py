"""The safety record: what this key has signed at the current height, and what it needs to stand by it.

It keeps whole messages, so that a restart re-sends the same bytes, and every block that this key prepared at
the height, because a later leader may have to fetch it from those that signed for it. Rule 15 and pitfalls 2,
4 and 8 of the specification.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydec.codec.wire import HASH_BYTES, Reader, blob, optional, u16, u32, u64
from pydec.consensus.block import MAX_BLOCK_BYTES
from pydec.consensus.certificate import (
    MAX_CERTIFICATE_BYTES,
    MAX_TIMEOUT_CERTIFICATE_BYTES,
    QuorumCertificate,
    TimeoutCertificate,
)
from pydec.consensus.messages import MAX_MESSAGE_BYTES, Message, Proposal, Timeout, Vote, decode
from pydec.errors import FrameError

VERSION = 1
MAX_BLOCKS = 32  # kept of one height; a round makes at most one, and rounds get slower


@dataclass
class SafetyRecord:
    """Everything about one height that must survive.

    Args:
        chain_id, epoch, height: where.
        proposal, prepare, commit, timeout: the newest message of each kind that was sent, encoded.
        proposed, prepared, committed, timed_out: their rounds, -1 for none.
        high: the highest known prepare certificate of a round up to the current one.
        ended: the timeout certificate that led to the current round, None in round 0.
        justification: the prepare certificate of the highest round that ``ended`` names.
        blocks: the blocks that were prepared, encoded, by hash, oldest first.
    """

    chain_id: bytes
    epoch: int
    height: int
    proposal: bytes | None = None
    prepare: bytes | None = None
    commit: bytes | None = None
    timeout: bytes | None = None
    proposed: int = -1
    prepared: int = -1
    committed: int = -1
    timed_out: int = -1
    high: QuorumCertificate | None = None
    ended: TimeoutCertificate | None = None
    justification: QuorumCertificate | None = None
    blocks: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def high_round(self) -> int:
        """Round of ``high``, -1 for none."""
        return -1 if self.high is None else self.high.round

    def keep(self, block_hash: bytes, block: bytes) -> None:
        """Add a block; beyond ``MAX_BLOCKS`` the oldest that no certificate here names is forgotten."""
        if block_hash in self.blocks:
            return
        if len(self.blocks) >= MAX_BLOCKS:
            named = {qc.block_hash for qc in (self.high, self.justification) if qc is not None}
            del self.blocks[next(known for known in self.blocks if known not in named)]
        self.blocks[block_hash] = block

    def messages(self) -> list[bytes]:
        """What a restart sends again."""
        sent = (self.proposal, self.prepare, self.commit, self.timeout)
        return [message for message in sent if message is not None]

    def encode(self) -> bytes:
        """Canonical bytes."""
        parts = [u16(VERSION), self.chain_id, u64(self.epoch), u64(self.height)]
        parts += [optional(sent) for sent in (self.proposal, self.prepare, self.commit, self.timeout)]
        for certificate in (self.high, self.justification, self.ended):
            parts.append(optional(None if certificate is None else certificate.encode()))
        parts.append(u32(len(self.blocks)))
        parts += [block_hash + blob(block) for block_hash, block in self.blocks.items()]
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes, chain_id: bytes) -> SafetyRecord:
        """The record of these bytes.

        Raises:
            FrameError: they are none, or of another chain.
        """
        reader = Reader(data, "a safety record")
        version = reader.u16()
        if version != VERSION:
            raise FrameError(f"a safety record has version {version}, this pydec reads {VERSION}")
        chain, epoch, height = reader.take(HASH_BYTES), reader.u64(), reader.u64()
        if chain != chain_id:
            raise FrameError(f"a safety record of chain {chain.hex()[:16]}, this is {chain_id.hex()[:16]}")
        record = cls(chain_id, epoch, height)
        sent = [reader.optional(MAX_MESSAGE_BYTES) for _ in range(4)]
        record.proposal, record.prepare, record.commit, record.timeout = sent
        rounds = [_round(message, height, chain_id) for message in sent]
        record.proposed, record.prepared, record.committed, record.timed_out = rounds
        high, justification = reader.optional(MAX_CERTIFICATE_BYTES), reader.optional(MAX_CERTIFICATE_BYTES)
        ended = reader.optional(MAX_TIMEOUT_CERTIFICATE_BYTES)
        record.high = None if high is None else QuorumCertificate.decode(high)
        record.justification = None if justification is None else QuorumCertificate.decode(justification)
        record.ended = None if ended is None else TimeoutCertificate.decode(ended)
        for _ in range(reader.count(MAX_BLOCKS)):
            block_hash = reader.take(HASH_BYTES)
            if block_hash in record.blocks:
                raise FrameError(f"a safety record holds block {block_hash.hex()[:16]} twice")
            record.blocks[block_hash] = reader.blob(MAX_BLOCK_BYTES)
        reader.end()
        return record


def _round(data: bytes | None, height: int, chain_id: bytes) -> int:
    if data is None:
        return -1
    message: Message = decode(data, chain_id)
    if not isinstance(message, Proposal | Vote | Timeout) or message.height != height:
        raise FrameError(f"a safety record of height {height} holds {type(message).__name__}")
    return message.round
