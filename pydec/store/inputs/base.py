"""What a thing to be added looks like to who adds it: fields, and blocks of samples in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pydec.disk import Buffer
from pydec.errors import StoreError
from pydec.store.manifest import Field, Source

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class Stream:
    """A value that is too large to hold.

    Args:
        n_bytes: its length.
        pieces: its bytes, which may be asked for once; each is good until the next is asked for.
    """

    n_bytes: int
    pieces: Iterator[Buffer]


@dataclass(frozen=True)
class Span:
    """A value that is too large to hold, any part of which can be read.

    Args:
        n_bytes: its length.
        read_at: fills a room with the bytes from an offset; from any thread. StoreError: they cannot be read.
    """

    n_bytes: int
    read_at: Callable[[int, memoryview], None]


@dataclass(frozen=True)
class Sample:
    """One sample: the bytes of each field."""

    values: tuple[Buffer | Stream | Span, ...]


@dataclass(frozen=True)
class Run:
    """Many small samples, one after the other.

    Args:
        data: their bytes.
        sizes: bytes of each, shape (samples,), int64.
        lengths: bytes of the fields whose length differs, shape (samples, such fields), int64.
    """

    data: Buffer
    sizes: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def rows(cls, array: NDArray[np.uint8]) -> Run:
        """Samples of equal length: uint8 of shape (samples, bytes), C-contiguous."""
        count, size = array.shape
        sizes = np.full(count, size, np.int64)
        return cls(memoryview(array.reshape(-1)), sizes, np.empty((count, 0), np.int64))

    def after(self, start: int) -> Run:
        """The same without the first ``start`` samples."""
        at = int(self.sizes[:start].sum())
        return Run(memoryview(self.data)[at:], self.sizes[start:], self.lengths[start:])


class Input(Protocol):
    """Something that can be added.

    Attributes:
        kind: for ``Head.kind``.
        fields: of every sample.
        classes: names of the numbers of the field label.
        n_bytes: about how many bytes there are to read, for a progress bar; 0 if nobody knows.
        fingerprint: changes when what is to be added changes, as far as that can be told without reading it.
    """

    kind: str
    fields: tuple[Field, ...]
    classes: tuple[str, ...]
    n_bytes: int
    fingerprint: bytes

    def blocks(self, start: int) -> Iterator[Sample | Run]:
        """Samples in order, without the first ``start``.

        Raises:
            StoreError: something cannot be read, or has changed since this object was made.
        """

    def sources(self) -> tuple[Source, ...]:
        """Files that the samples were taken from; may be asked once ``blocks`` has ended."""


class Watched:
    """A file that must not change while it is read; also a context manager.

    Args:
        path: of the file.
        known: what ``mark_of`` said of it before; None: nobody looked.

    Raises:
        StoreError: it cannot be opened, or has changed.
    """

    def __init__(self, path: Path | bytes, known: bytes | None = None) -> None:
        self.path = os.fsdecode(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise StoreError(f"{self.path!r} cannot be read: {error.strerror}") from None
        self.file: BinaryIO = os.fdopen(descriptor, "rb", buffering=0)
        self._mark = mark_of(os.fstat(descriptor))
        self.n_bytes = os.fstat(descriptor).st_size
        if known is not None and known != self._mark:
            self.file.close()
            raise self._changed()

    def pieces(self, limit: int = READ_BYTES) -> Iterator[bytes]:
        """Its bytes from where it is read; ends with ``check``.

        Raises:
            StoreError: it cannot be read, or has changed.
        """
        while piece := self.read(limit):
            yield piece
        self.check()

    def read_at(self, offset: int, room: memoryview) -> None:
        """Fill a room with its bytes from an offset; from any thread, and wherever else it is read.

        Raises:
            StoreError: it cannot be read, or ends before, and so has changed.
        """
        while room:
            try:
                count = os.preadv(self.file.fileno(), [room], offset)
            except OSError as error:
                raise StoreError(f"{self.path!r} cannot be read: {error.strerror}") from None
            if not count:
                raise self._changed()
            room, offset = room[count:], offset + count

    def read(self, n_bytes: int) -> bytes:
        """The next bytes, fewer at the end.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            return self.file.read(n_bytes)
        except OSError as error:
            raise StoreError(f"{self.path!r} cannot be read: {error.strerror}") from None

    def check(self) -> None:
        """Whether it is what it was when it was opened.

        Raises:
            StoreError: it has changed.
        """
        if mark_of(os.fstat(self.file.fileno())) != self._mark:
            raise self._changed()

    def close(self) -> None:
        """Close it; idempotent."""
        self.file.close()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _changed(self) -> StoreError:
        return StoreError(f"{self.path!r} changed while it was being added: add it again once it rests")


def mark_of(status: os.stat_result) -> bytes:
    """What changes when a file's content changes: size, time of the last write, and which file it is."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino} {status.st_dev}".encode()


def fingerprint(paths: list[Path], *words: object) -> bytes:
    """Of a few files and how they are read.

    Raises:
        StoreError: one is not there.
    """
    found = blake3(repr(words).encode())
    for path in paths:
        try:
            found.update(repr((os.fspath(path), mark_of(path.stat()))).encode())
        except OSError as error:
            raise StoreError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    return found.digest()


class Tee:
    """Counts and hashes what goes past, for a ``Source``."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._hash = blake3()

    def update(self, data: Buffer) -> None:
        """Some more of the file."""
        self.n_bytes += len(data)
        self._hash.update(data)

    @property
    def digest(self) -> bytes:
        """Of all so far."""
        return self._hash.digest()
