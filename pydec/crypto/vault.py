"""Data at rest: every chunk hidden and authenticated in its place, under one key per data set and generation.

====== ====  ===========================================================
offset size  field of a sealed chunk; the first 64 bytes are its header
====== ====  ===========================================================
0      4     ``pdv1``
4      4     generation of the key
8      8     index of the chunk in the data set
16     4     n, bytes that the chunk holds
20     12    name of the key, the beginning of its ``check``
32     32    salt
64     n     what the chunk holds, under AES-256-GCM
64 + n 16    authentication tag
====== ====  ===========================================================

Little-endian. What is sealed is what is named, replicated, verified and repaired: that takes no key.

Each chunk has a key and nonce of its own, which HKDF makes of the data set's key, the header with the salt,
and the data set's id; all of these are associated data too. The salt is a keyed BLAKE3 hash of what the chunk
holds and of its place, so one key and nonce seal one content, however often, in whichever process and after
whatever crash: adding the same data again makes the same bytes, which the store has already, and other data
in the same place has another key. No counter has to survive. Two chunks have one salt with a chance of
2^-128 after 2^64 chunks. What it shows to who has no key: whether two versions of a data set hold the same
in the same place. Chunks in different places never look alike. Source of the construction: Rogaway,
Shrimpton, "A provable-security treatment of the key-wrap problem", EUROCRYPT 2006 (synthetic initial
vectors), with a derived key in place of the short nonce of GCM.

A salt may also be drawn at random (``fresh``), which saves the pass over the content where equal chunks need
not look alike.
"""

from __future__ import annotations

import os
import struct
from typing import Any, NoReturn

from blake3 import blake3

from pydec.crypto.handshake import expand
from pydec.crypto.suites import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Suite, cipher
from pydec.errors import FrameError

ID_BYTES = 32
CHECK_BYTES = 32
_MAGIC = b"pdv1"
_NAME_BYTES, _SALT_BYTES = 12, 32
_PLACE = struct.Struct(f"<4sIQI{_NAME_BYTES}s")
HEADER_BYTES = _PLACE.size + _SALT_BYTES
OVERHEAD_BYTES = HEADER_BYTES + TAG_BYTES
"""What sealing adds to every chunk."""
_MOST_BYTES = (1 << 31) - 1 - OVERHEAD_BYTES  # what the library takes in one call
_INFO = b"pydec.v1 | vault | "


class BadChunk(FrameError):
    """A chunk that is refused.

    Args:
        kind: one word for counting: ``truncated``, ``misplaced``, ``foreign`` (of another key) or ``forged``.
        why: in words.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(f"{kind}: {why}")
        self.kind = kind


class DatasetKey:
    """The key of one generation of a data set, which seals and opens its chunks. Any thread may use it.

    It lives in memory only: it is not shown, stored or copied. ``wrapping`` seals it for a reader.

    Args:
        secret: 32 random bytes, never of two data sets or generations.
        dataset: 32 bytes that name the data set from its beginning, drawn at random: the root of its manifest
            is known only when all chunks are sealed. Data that is appended goes on under the same id.
        generation: of the key, from 0; each revocation begins the next.

    Raises:
        ValueError: a length or number out of its range.
    """

    __slots__ = ("_salting", "_secret", "check", "dataset", "generation")

    def __init__(self, secret: bytes, dataset: bytes, generation: int = 0) -> None:
        if len(secret) != KEY_BYTES or len(dataset) != ID_BYTES:
            raise ValueError(
                f"a data set's key and id have {KEY_BYTES} and {ID_BYTES} bytes, got {len(secret)} and "
                f"{len(dataset)}"
            )
        if not 0 <= generation < 1 << 32:
            raise ValueError(f"a key's generation must be in [0, 2^32), got {generation}")
        self.dataset, self.generation = bytes(dataset), generation
        self._secret = bytes(secret)
        self._salting = expand(self._secret, _INFO + b"salt")
        self.check = expand(self._secret, _INFO + b"check" + self._context(), CHECK_BYTES)
        """32 bytes that prove the key to who knows them and tell nothing of it; for the manifest."""

    @classmethod
    def generate(cls, dataset: bytes | None = None, generation: int = 0) -> DatasetKey:
        """A new key from the system's random numbers, and a new data set's id if None is given."""
        return cls(os.urandom(KEY_BYTES), os.urandom(ID_BYTES) if dataset is None else dataset, generation)

    def successor(self) -> DatasetKey:
        """A new key for the next generation, which does not follow from this one."""
        return DatasetKey.generate(self.dataset, self.generation + 1)

    def reveal(self) -> bytes:
        """The 32 secret bytes, for ``wrapping`` alone."""
        return self._secret

    def encrypt_chunk(self, index: int, plain: Any, *, fresh: bool = False) -> bytes:
        """Seal a chunk; ``len(plain) + OVERHEAD_BYTES`` bytes. As ``encrypt_chunk_into``."""
        out = bytearray(memoryview(plain).nbytes + OVERHEAD_BYTES)
        self.encrypt_chunk_into(index, plain, out, fresh=fresh)
        return bytes(out)

    def encrypt_chunk_into(self, index: int, plain: Any, out: Any, *, fresh: bool = False) -> int:
        """Seal a chunk from where it lies to where it is stored or sent from; releases the GIL.

        Args:
            index: of the chunk in the data set, from 0; those of appended data go on counting.
            plain: bytes-like, contiguous; not changed.
            out: writable and bytes-like, at least ``len(plain) + OVERHEAD_BYTES`` bytes; must not overlap.
            fresh: draw the salt, so that equal chunks do not look alike; one pass over ``plain`` less.

        Returns:
            Bytes written.

        Raises:
            ValueError: a number or length out of its range.

        Cost: two passes over ``plain``, BLAKE3 and AES-256-GCM; ``fresh``: the second alone.
        """
        content, room = memoryview(plain).cast("B"), memoryview(out).cast("B")
        if not 0 <= index < 1 << 64 or content.nbytes > _MOST_BYTES:
            raise ValueError(
                f"a chunk has an index in [0, 2^64) and at most {_MOST_BYTES} bytes, got chunk {index} of "
                f"{content.nbytes} bytes"
            )
        size = content.nbytes + OVERHEAD_BYTES
        if room.nbytes < size:
            raise ValueError(f"chunk {index} needs {size} bytes when sealed, got room for {room.nbytes}")
        place = _PLACE.pack(_MAGIC, self.generation, index, content.nbytes, self._name)
        if fresh:
            salt = os.urandom(_SALT_BYTES)
        else:
            salt = blake3(self.dataset + place, key=self._salting).update(content).digest(_SALT_BYTES)
        header = place + salt
        room[:HEADER_BYTES] = header
        tool, nonce, bound = self._tool(header)
        tool.encrypt_into(nonce, content, bound, room[HEADER_BYTES:size])
        return size

    def decrypt_chunk(self, index: int, sealed: Any) -> bytes:
        """Open a chunk. As ``decrypt_chunk_into``."""
        out = bytearray(max(0, memoryview(sealed).nbytes - OVERHEAD_BYTES))
        self.decrypt_chunk_into(index, sealed, out)
        return bytes(out)

    def decrypt_chunk_into(self, index: int, sealed: Any, out: Any) -> int:
        """Open a chunk to where it is wanted; releases the GIL.

        Args:
            index: that it must have.
            sealed: bytes-like, contiguous, as it was stored; anything at all.
            out: writable and bytes-like, at least ``len(sealed) - OVERHEAD_BYTES`` bytes; holds anything
                after a refusal.

        Returns:
            Bytes written.

        Raises:
            BadChunk: it is not what this key has sealed for this place.
            ValueError: ``out`` is too short.
        """
        from cryptography.exceptions import InvalidTag

        message, room = memoryview(sealed).cast("B"), memoryview(out).cast("B")
        header = self._header(index, message)
        size = message.nbytes - OVERHEAD_BYTES
        if room.nbytes < size:
            raise ValueError(f"chunk {index} holds {size} bytes, got room for {room.nbytes}")
        tool, nonce, bound = self._tool(header)
        try:
            tool.decrypt_into(nonce, message[HEADER_BYTES:], bound, room[:size])
        except InvalidTag:
            raise self._refused("forged", index, "is not what was sealed") from None
        return size

    def __repr__(self) -> str:
        return f"DatasetKey(dataset={self.dataset.hex()[:16]}, generation={self.generation})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a data set's key is neither copied nor stored; wrap it for whom it is meant")

    def _context(self) -> bytes:
        return self.dataset + self.generation.to_bytes(4, "little")

    @property
    def _name(self) -> bytes:
        return self.check[:_NAME_BYTES]

    def _tool(self, header: bytes) -> tuple[Any, bytes, bytes]:
        """The library's object, nonce and associated data for the chunk with this header."""
        bound = header + self.dataset
        material = expand(self._secret, _INFO + b"chunk" + bound, KEY_BYTES + NONCE_BYTES)
        return cipher(Suite.AES_256_GCM, material[:KEY_BYTES]), material[KEY_BYTES:], bound

    def _header(self, index: int, message: memoryview) -> bytes:
        """The header of a chunk that is whole and of this key and place, as far as it says so itself."""
        generation, found, size, name = _parsed(message, f"chunk {index}")
        if generation != self.generation:
            raise self._refused("foreign", index, f"is sealed with the key of generation {generation}")
        if name != self._name:
            raise self._refused("foreign", index, f"is sealed with key {name.hex()}, not {self._name.hex()}")
        if found != index:
            raise self._refused("misplaced", index, f"is chunk {found}")
        if message.nbytes != size + OVERHEAD_BYTES:
            there = message.nbytes - OVERHEAD_BYTES
            raise self._refused("truncated", index, f"held {size} bytes, and {max(0, there)} are there")
        return bytes(message[:HEADER_BYTES])

    def _refused(self, kind: str, index: int, why: str) -> BadChunk:
        where = f"data set {self.dataset.hex()[:16]}, generation {self.generation}"
        return BadChunk(kind, f"chunk {index} of {where} {why}")


def generation_of(sealed: Any) -> int:
    """The generation whose key opens a sealed chunk, as it says itself; ``decrypt_chunk`` proves it.

    Raises:
        BadChunk: the bytes are too few, or no sealed chunk.
    """
    return _parsed(memoryview(sealed).cast("B"), "it")[0]


def _parsed(message: memoryview, what: str) -> tuple[int, int, int, bytes]:
    """Generation, index, bytes held and key's name from the header of a sealed chunk."""
    if message.nbytes < OVERHEAD_BYTES:
        raise BadChunk(
            "truncated", f"{what} has {message.nbytes} bytes, a sealed chunk {OVERHEAD_BYTES} or more"
        )
    magic, generation, index, size, name = _PLACE.unpack_from(message)
    if magic != _MAGIC:
        raise BadChunk("forged", f"{what} begins with {magic.hex()}, a sealed chunk with {_MAGIC.hex()}")
    return generation, index, size, name
