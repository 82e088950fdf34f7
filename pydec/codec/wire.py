"""Reading and writing bytes that are hashed or signed: big-endian, fixed width, one encoding each, bounded.

Those of the ledger and of manifests are big-endian; gossip frames, which nothing signs, follow
the little-endian machines that fill them. A reader given any bytes gives values or raises ``FrameError``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydec.errors import FrameError

T = TypeVar("T")

HASH_BYTES = 32
ROUND_LIMIT = 1 << 31  # rounds are below: TIMEOUT signs a round as a signed 32-bit number, -1 for none

_U16, _U32, _U64, _I32 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q"), struct.Struct(">i")


def u16(value: int) -> bytes:
    """Two bytes."""
    return _U16.pack(value)


def u32(value: int) -> bytes:
    """Four bytes."""
    return _U32.pack(value)


def u64(value: int) -> bytes:
    """Eight bytes."""
    return _U64.pack(value)


def i32(value: int) -> bytes:
    """Four bytes, two's complement."""
    return _I32.pack(value)


def blob(data: bytes) -> bytes:
    """A 4-byte length and the bytes. The reader states how many it takes."""
    return _U32.pack(len(data)) + data


def optional(data: bytes | None) -> bytes:
    """One byte 0 for nothing; or 1 and a blob."""
    return b"\0" if data is None else b"\1" + blob(data)


def blobs(items: Sequence[bytes]) -> bytes:
    """A 4-byte count and as many blobs."""
    return _U32.pack(len(items)) + b"".join(map(blob, items))


class Reader:
    """Takes values off the front of some bytes; every method raises FrameError where they do not fit.

    Args:
        data: the bytes; nothing is copied but what is taken.
        what: what they should be, for messages.
        at: where to begin.
    """

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str, at: int = 0) -> None:
        self._data, self._what, self._at = data, what, at

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The fields of a fixed layout."""
        try:
            fields = layout.unpack_from(self._data, self._at)
        except struct.error:
            raise FrameError(f"{self._what} ends after {len(self._data)} bytes, in a field") from None
        self._at += layout.size
        return fields

    def take(self, n_bytes: int) -> bytes:
        """Exactly that many bytes."""
        end = self._at + n_bytes
        if end > len(self._data):
            raise FrameError(f"{self._what} ends after {len(self._data)} bytes, expected {end} or more")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def pieces(self, count: int, n_bytes: int) -> tuple[bytes, ...]:
        """``count`` times exactly that many bytes."""
        data = self.take(count * n_bytes)
        return tuple(data[at : at + n_bytes] for at in range(0, len(data), n_bytes))

    def _number(self, layout: struct.Struct) -> int:
        try:
            value: int = layout.unpack_from(self._data, self._at)[0]
        except struct.error:
            raise FrameError(f"{self._what} ends after {len(self._data)} bytes, in a number") from None
        self._at += layout.size
        return value

    def u8(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def u16(self) -> int:
        """Two bytes."""
        return self._number(_U16)

    def u32(self) -> int:
        """Four bytes."""
        return self._number(_U32)

    def u64(self) -> int:
        """Eight bytes."""
        return self._number(_U64)

    def i32(self) -> int:
        """Four bytes, two's complement."""
        return self._number(_I32)

    def round(self) -> int:
        """A round number."""
        value = self._number(_U32)
        if value >= ROUND_LIMIT:
            raise FrameError(f"{self._what} names round {value}; rounds are below {ROUND_LIMIT}")
        return value

    def blob(self, most: int) -> bytes:
        """A length of at most ``most``, and as many bytes."""
        length = self._number(_U32)
        if length > most:
            raise FrameError(f"{self._what} claims a part of {length} bytes, at most {most} are allowed")
        return self.take(length)

    def count(self, most: int) -> int:
        """A 4-byte count of at most ``most``."""
        count = self._number(_U32)
        if count > most:
            raise FrameError(f"{self._what} claims {count} parts, at most {most} are allowed")
        return count

    def optional(self, most: int) -> bytes | None:
        """What ``optional`` wrote."""
        flag = self.u8()
        if flag > 1:
            raise FrameError(f"{self._what} has flag {flag} where 0 or 1 must be")
        return self.blob(most) if flag else None

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise FrameError(f"{self._what} has {len(self._data) - self._at} bytes after its end")


def checked(what: str, make: Callable[..., T], *fields: object) -> T:
    """``make(*fields)``, with the ValueError of values that cannot be turned into a FrameError."""
    try:
        return make(*fields)
    except (ValueError, UnicodeError) as error:
        raise FrameError(f"{what}: {error}") from None
