"""Digests: SHA-256 for what consensus signs, BLAKE3 Merkle roots for what is large.

A checkpoint or data set is cut into chunks of one size; its root is the Merkle tree hash of them in the
shape of RFC 9162, section 2.1.1, over BLAKE3: leaf = H(0x00 | chunk), node = H(0x01 | left | right), split
at the largest power of two below the number of leaves. The two prefixes keep a node from passing as a chunk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from pydec.errors import SetupError

DIGEST_BYTES = 32
CHUNK_BYTES = 1 << 20
_LEAF, _NODE = b"\x00", b"\x01"


def sha256(*parts: bytes) -> bytes:
    """SHA-256 of the parts one after the other, 32 bytes. Lengths are the caller's to fix or to include."""
    return hashlib.sha256(b"".join(parts)).digest()  # parts are short: one call, not one for each of them


def merkle_root(chunks: Iterable[bytes | memoryview]) -> bytes:
    """Root of a sequence of chunks, 32 bytes; that of no chunks is H of nothing.

    Cost: one pass; holds one chunk and log2(number of chunks) digests.

    Source: RFC 9162, section 2.1.1; the stack of complete subtrees is that of section 2.1.2.
    """
    stack: list[tuple[int, bytes]] = []  # (leaves, root) of complete subtrees, the largest first
    for chunk in chunks:
        leaves, root = 1, blake3(_LEAF).update(chunk).digest()
        while stack and stack[-1][0] == leaves:
            root = _node(stack.pop()[1], root)
            leaves *= 2
        stack.append((leaves, root))
    if not stack:
        return blake3().digest()
    root = stack.pop()[1]
    while stack:
        root = _node(stack.pop()[1], root)
    return root


def bytes_root(data: bytes | bytearray | memoryview, chunk_bytes: int = CHUNK_BYTES) -> bytes:
    """Root of bytes in memory, cut into chunks of ``chunk_bytes``; nothing is copied."""
    view = memoryview(data).cast("B")
    return merkle_root(view[at : at + chunk_bytes] for at in range(0, len(view), _positive(chunk_bytes)))


def file_root(path: Path, chunk_bytes: int = CHUNK_BYTES) -> bytes:
    """Root of a file's bytes, the same as ``bytes_root`` of them.

    Raises:
        SetupError: it cannot be read.
    """
    _positive(chunk_bytes)
    try:
        with open(path, "rb") as file:
            return merkle_root(iter(lambda: file.read(chunk_bytes), b""))
    except OSError as error:
        raise SetupError(f"cannot hash {path}: {error.strerror or error}") from None


def _node(left: bytes, right: bytes) -> bytes:
    return blake3(_NODE + left + right).digest()


def _positive(chunk_bytes: int) -> int:
    if chunk_bytes < 1:
        raise ValueError(f"a chunk has at least 1 byte, got chunk_bytes={chunk_bytes}")
    return chunk_bytes
