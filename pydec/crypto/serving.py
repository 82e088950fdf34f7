"""What a peer signs of every object that it gives: "asked for this name, I sent bytes of this BLAKE3".

An object's name is its BLAKE3, so such words with two different digests prove by themselves that something
else was sent than was asked for; nobody needs the bytes to see it. The store makes and checks them, the
ledger judges them; both build the same bytes here.
"""

from __future__ import annotations

import struct

from pydec.crypto.hashing import DIGEST_BYTES

_SAID = struct.Struct(f">16s{DIGEST_BYTES}sII{DIGEST_BYTES}s{DIGEST_BYTES}s")
_TAG = b"pydec.serving.v1"


def serving_bytes(context: bytes, asker: int, request: int, name: bytes, digest: bytes) -> bytes:
    """The bytes under the signature.

    Args:
        context: the chain's id, 32 bytes.
        asker: rank of who asked, below 2^32.
        request: the asker's number of the request, below 2^32.
        name: of the object that was asked for, 32 bytes.
        digest: BLAKE3 of the bytes that were sent, 32 bytes.
    """
    return _SAID.pack(_TAG, context, asker, request, name, digest)
