"""Arrays in files, one row of each to a sample: what IDX and NumPy files have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydec.errors import StoreError
from pydec.store.inputs.base import READ_BYTES, Run, Sample, Stream, Tee, fingerprint
from pydec.store.manifest import DTYPES, Field, Kind, Source

_LARGE_ROW_BYTES = 8 << 20  # above it rows are not held


class RowFile(Protocol):
    """An open file of rows, without its head."""

    def read(self, n_bytes: int) -> bytes:
        """The next bytes, fewer at the end."""

    def check(self) -> None:
        """Raises StoreError if the file has changed since it was opened."""

    def close(self) -> None:
        """Close it."""


@dataclass(frozen=True)
class Column:
    """An array in a file.

    Args:
        path: of the file, for messages.
        name: of the file that ``export`` makes of it.
        head: bytes before the first row.
        field: what a row is.
        rows: how many.
        swapped: whether its numbers are big-endian.
    """

    path: Path
    name: str
    head: bytes
    field: Field
    rows: int
    swapped: bool

    def open(self) -> RowFile:
        """The file, at its first row."""
        raise NotImplementedError


class Columns:
    """Groups of arrays of equal length, a row of each to a sample; the groups follow one another.

    Args:
        kind: for ``Input.kind``.
        groups: each with the same fields in the same order.

    Raises:
        StoreError: groups or arrays that do not fit together.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, kind: str, groups: Sequence[Sequence[Column]]) -> None:
        self.kind, self._groups = kind, groups
        self.fields = tuple(column.field for column in groups[0])
        for group in groups:
            for column in group:
                if column.rows != group[0].rows:
                    raise StoreError(
                        f"{column.path} has {column.rows} rows and {group[0].path} {group[0].rows}: a sample "
                        "is "
                        "a row of each"
                    )
            if tuple(column.field for column in group) != self.fields:
                raise StoreError(
                    f"{group[0].path} and what is with it have other shapes or types than "
                    f"{groups[0][0].path}; "
                    "add them apart"
                )
        if len({field.name for field in self.fields}) != len(self.fields):
            raise StoreError(f"two arrays of {groups[0][0].path} have one name; save them under two")
        self._row = sum(field.n_bytes for field in self.fields)
        self.n_bytes = sum(group[0].rows for group in groups) * self._row
        paths = sorted({column.path for group in groups for column in group})
        self.fingerprint = fingerprint(paths, kind, self.fields)
        self._sources: list[Source] = []

    def blocks(self, start: int) -> Iterator[Run | Sample]:
        """See ``Input.blocks``; all is read again, as the files' digests need it."""
        self._sources, first = [], 0
        for group in self._groups:
            tees = [Tee() for _ in group]
            with ExitStack() as stack:
                files = []
                for column, tee in zip(group, tees, strict=True):
                    tee.update(column.head)
                    file = column.open()
                    stack.callback(file.close)
                    files.append(file)
                readers = [_Rows(c, f, t) for c, f, t in zip(group, files, tees, strict=True)]
                if self._row > _LARGE_ROW_BYTES:
                    yield from self._large(readers, group[0].rows, start - first)
                else:
                    yield from self._small(readers, group[0].rows, start - first)
                for reader in readers:
                    reader.end()
            for number, (column, tee) in enumerate(zip(group, tees, strict=True)):
                name, rows, swapped = os.fsencode(column.name), column.rows, int(column.swapped)
                self._sources.append(
                    Source(name, column.head, number, first, rows, tee.n_bytes, tee.digest, swapped)
                )
            first += group[0].rows

    def sources(self) -> tuple[Source, ...]:
        """See ``Input.sources``."""
        return tuple(self._sources)

    def _small(self, readers: list[_Rows], rows: int, start: int) -> Iterator[Run]:
        step = max(1, READ_BYTES // self._row)
        for at in range(0, rows, step):
            count = min(step, rows - at)
            parts = [reader.rows(count) for reader in readers]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
            if at + count > start:
                yield Run.rows(np.ascontiguousarray(whole[max(0, start - at) :]))

    def _large(self, readers: list[_Rows], rows: int, start: int) -> Iterator[Sample]:
        for number in range(rows):
            streams = [reader.stream() for reader in readers]
            if number >= start:
                yield Sample(tuple(streams))
            for stream in streams:  # those that nobody asked for
                for _ in stream.pieces:
                    pass


class _Rows:
    """Reads rows off a file, past a ``Tee``, little-endian."""

    def __init__(self, column: Column, file: RowFile, tee: Tee) -> None:
        self._column, self._file, self._tee = column, file, tee
        self._item = DTYPES[column.field.dtype]

    def rows(self, count: int) -> NDArray[np.uint8]:
        """The next rows, uint8 of shape (count, bytes)."""
        data = self._read(count * self._column.field.n_bytes)
        return np.frombuffer(data, np.uint8).reshape(count, -1)

    def stream(self) -> Stream:
        """The next row, piece by piece."""
        size = self._column.field.n_bytes
        return Stream(size, (self._read(min(READ_BYTES, size - at)) for at in range(0, size, READ_BYTES)))

    def end(self) -> None:
        """Whether the file ends here, unchanged."""
        if self._file.read(1):
            raise StoreError(f"{self._column.path} has more bytes than its head says: it may be damaged")
        self._file.check()

    def _read(self, n_bytes: int) -> bytes:
        found = self._file.read(n_bytes)
        while len(found) < n_bytes:
            more = self._file.read(n_bytes - len(found))
            if not more:
                raise StoreError(
                    f"{self._column.path} ends before its {self._column.rows} rows do: it may be damaged"
                )
            found += more
        self._tee.update(found)
        if not self._column.swapped or self._item == 1:
            return found
        return np.frombuffer(found, f">u{self._item}").astype(f"<u{self._item}").tobytes()


def field_of(name: str, dtype: np.dtype[np.generic], shape: Sequence[int], path: Path) -> Field:
    """The field of an array's rows.

    Raises:
        StoreError: a type or shape that no field has.
    """
    if dtype.name not in DTYPES:
        raise StoreError(f"{path} holds {dtype}, and a data set holds {', '.join(DTYPES)}; convert it")
    if 0 in shape or len(shape) > 16:
        raise StoreError(f"{path} has rows of shape {tuple(shape)}, which hold nothing")
    return Field(name, Kind.ARRAY, dtype.name, tuple(shape))
