"""What a peer signs of every packet that it sends: "in this round all who listen to me are sent these bytes".

Two such claims of one key about one packet with different digests prove that it told different things to
different listeners. Gossip makes and compares them, the ledger judges them; both build the same bytes here.
"""

from __future__ import annotations

import struct

from blake3 import blake3

from pydec.crypto.hashing import DIGEST_BYTES

CONTEXT_BYTES = 2 * DIGEST_BYTES
_CLAIM = struct.Struct(f">14s{CONTEXT_BYTES}sQQI{DIGEST_BYTES}s")
_TAG = b"pydec.claim.v1"


def claim_bytes(context: bytes, epoch: int, round: int, number: int, digest: bytes) -> bytes:
    """The bytes under the signature of a claim.

    Args:
        context: chain id and run id, 32 bytes each: rounds are counted anew in every run.
        epoch, round: of gossip, below 2^64.
        number: of the packet among those of the round, below 2^32.
        digest: of its payload.
    """
    return _CLAIM.pack(_TAG, context, epoch, round, number, digest)


def payload_digest(payload: memoryview | bytes) -> bytes:
    """BLAKE3 of a packet's payload, 32 bytes."""
    return blake3(payload).digest()
