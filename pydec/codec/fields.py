"""Codecs of the fields that transactions, state and manifests are made of: one encoding each, all bounded.

A record is a frozen dataclass that lists its fields; ``record`` makes its codec. Writing checks what reading
checks, so nothing is ever encoded that a peer would refuse.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydec.codec import wire
from pydec.codec.wire import Reader
from pydec.errors import FrameError

Writer = list[bytes]
"""Pieces of what is being written."""

T = TypeVar("T")


@dataclass(frozen=True)
class Codec(Generic[T]):
    """How a value of one type is written and read.

    Args:
        write: appends a value's pieces; raises FrameError if it is out of its range.
        read: the next value; raises FrameError if the bytes are not one.
    """

    write: Callable[[Writer, T], None]
    read: Callable[[Reader], T]

    def encode(self, value: T) -> bytes:
        """The bytes of one value."""
        out: Writer = []
        self.write(out, value)
        return b"".join(out)

    def decode(self, data: bytes, what: str) -> T:
        """The value of exactly these bytes, called ``what`` in messages; FrameError if they are not one."""
        reader = Reader(data, what)
        value = self.read(reader)
        reader.end()
        return value


def _number(value: object) -> int:
    """``value`` if it is an integer, and no bool or float that equals one; -1 if not."""
    return value if isinstance(value, int) and not isinstance(value, bool) else -1


def integer(n_bytes: int, least: int = 0, most: int | None = None) -> Codec[int]:
    """An unsigned integer of fixed width, big-endian."""
    limit = (1 << 8 * n_bytes) - 1 if most is None else most

    def check(value: int) -> int:
        if not least <= _number(value) <= limit:
            raise FrameError(f"an integer in [{least}, {limit}] was expected, got {value!r}")
        return value

    def write(out: Writer, value: int) -> None:
        if type(value) is not int or not least <= value <= limit:  # most are: one call for each, not three
            check(value)
        out.append(value.to_bytes(n_bytes, "big"))

    return Codec(write, lambda reader: check(int.from_bytes(reader.take(n_bytes), "big")))


def fixed(n_bytes: int) -> Codec[bytes]:
    """Exactly so many bytes."""

    def write(out: Writer, value: bytes) -> None:
        if type(value) is not bytes or len(value) != n_bytes:
            raise FrameError(f"{n_bytes} bytes were expected, got {len(value)}")
        out.append(value)

    return Codec(write, lambda reader: reader.take(n_bytes))


def blob(most: int) -> Codec[bytes]:
    """Any bytes up to a length, which goes before them in 4 bytes."""

    def write(out: Writer, value: bytes) -> None:
        if len(value) > most:
            raise FrameError(f"at most {most} bytes were expected, got {len(value)}")
        out.append(wire.blob(value))

    return Codec(write, lambda reader: reader.blob(most))


def text(most: int) -> Codec[str]:
    """Printable ASCII: nothing that looks like something else, or moves a terminal's cursor."""
    inner = blob(most)

    def check(value: str) -> str:
        if not (value.isascii() and (value.isprintable() or not value)):
            raise FrameError(f"printable ASCII was expected, got {value!r}")
        return value

    return Codec(
        lambda out, value: inner.write(out, check(value).encode()),
        lambda reader: check(inner.read(reader).decode("latin-1")),
    )


def many(item: Codec[T], most: int, key: Callable[[T], Any] | None = None) -> Codec[tuple[T, ...]]:
    """Up to ``most`` values; with ``key``, strictly increasing in it: a set or mapping has one encoding."""

    def check(values: tuple[T, ...]) -> tuple[T, ...]:
        if key is not None and any(not key(a) < key(b) for a, b in itertools.pairwise(values)):
            raise FrameError("values that must strictly increase do not")
        return values

    def write(out: Writer, values: tuple[T, ...]) -> None:
        if len(values) > most:
            raise FrameError(f"at most {most} values were expected, got {len(values)}")
        out.append(wire.u32(len(values)))
        for value in check(values):
            item.write(out, value)

    def read(reader: Reader) -> tuple[T, ...]:
        return check(tuple(item.read(reader) for _ in range(reader.count(most))))

    return Codec(write, read)


def record(make: Callable[..., T], **fields: Codec[Any]) -> Codec[T]:
    """A dataclass, its fields one after the other in the order given.

    ``make`` may refuse a combination with ValueError, which reads as FrameError.
    """

    def write(out: Writer, value: T) -> None:
        for name, codec in fields.items():
            codec.write(out, getattr(value, name))

    def read(reader: Reader) -> T:
        values = {name: codec.read(reader) for name, codec in fields.items()}
        return wire.checked("a record", lambda: make(**values))

    return Codec(write, read)


U8, U16, U32, U64 = (integer(n) for n in (1, 2, 4, 8))
AMOUNT = integer(8, 0, (1 << 62) - 1)
"""Stake or balance: sums of all stay below 2^62."""
ROUND = integer(8, 0, (1 << 62) - 1)
"""A training round; a margin can be added to it."""
DIGEST = fixed(32)
"""A hash, an id or a public key."""
SIGNATURE = fixed(64)
ADDRESS = text(128)
_NAME, _VALUE = text(32), text(256)


def _write_pair(out: Writer, pair: tuple[str, str]) -> None:
    _NAME.write(out, pair[0])
    _VALUE.write(out, pair[1])


PAIRS = many(
    Codec(_write_pair, lambda reader: (_NAME.read(reader), _VALUE.read(reader))), 64, key=lambda pair: pair[0]
)
"""Options: (name, value), sorted by name."""
