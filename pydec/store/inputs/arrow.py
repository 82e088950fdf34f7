"""Parquet and Arrow files: each row is a sample, each column a field. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pydec.disk import Buffer
from pydec.errors import SetupError, StoreError
from pydec.store.inputs.base import Sample, Stream, Watched, fingerprint
from pydec.store.manifest import DTYPES, Field, Kind, Source

_ROWS = 1024  # of a batch


class Tables:
    """Parquet or Arrow IPC files of one schema, row by row.

    A column holds numbers, text, bytes, lists of numbers, or records of these, whose parts become fields of
    their own. A value that is missing is an error: what it should become, its owner has to say.

    Args:
        paths: of the files.

    Raises:
        SetupError: pyarrow is not installed.
        StoreError: a file that is none of these, or a column that no field can hold.
    """

    kind = "arrow"
    classes: tuple[str, ...] = ()

    def __init__(self, paths: list[Path]) -> None:
        self._paths = sorted(paths)
        self.fingerprint = fingerprint(self._paths, self.kind)
        self.n_bytes = 0
        schema: Any = None
        for path in self._paths:
            with Watched(path) as file, _Table(path, file) as table:
                if schema is None:
                    schema = table.schema
                elif table.schema != schema:
                    raise StoreError(f"{path} has other columns than {self._paths[0]}; add them apart")
        self.fields = tuple(field for column in schema for field in _fields(column.name, column.type))

    def blocks(self, start: int) -> Iterator[Sample]:
        """See ``Input.blocks``."""
        first = 0
        for path in self._paths:
            with Watched(path) as file, _Table(path, file) as table:
                for batch in table.batches():
                    if first + batch.num_rows > start:
                        yield from self._rows(batch, max(0, start - first), path, first)
                    first += batch.num_rows
                file.check()

    def sources(self) -> tuple[Source, ...]:
        """See ``Input.sources``: a table's bytes are not kept, its rows are."""
        return ()

    def _rows(self, batch: Any, skip: int, path: Path, first: int) -> Iterator[Sample]:
        columns: list[Sequence[Buffer]] = []
        for column, name in zip(batch.columns, batch.schema.names, strict=True):
            columns += _values(column, name, path)
        for row in range(skip, batch.num_rows):
            values: list[Buffer | Stream] = []
            for field, column in zip(self.fields, columns, strict=True):
                value = column[row]
                if field.n_bytes and len(value) != field.n_bytes:
                    raise StoreError(
                        f"{path}: row {first + row} has {len(value)} bytes of {field.name}, others "
                        f"{field.n_bytes}"
                    )
                values.append(value)
            yield Sample(tuple(values))


class _Table:
    """One open file of either format."""

    def __init__(self, path: Path, file: Watched) -> None:
        arrow = load()
        self._path, self._arrow = path, arrow
        head = file.read(6)
        file.file.seek(0)
        try:
            if head[:4] == b"PAR1":
                import pyarrow.parquet

                self._reader: Any = pyarrow.parquet.ParquetFile(file.file)
                self.schema = self._reader.schema_arrow.remove_metadata()
            elif head == b"ARROW1":
                self._reader = arrow.ipc.open_file(file.file)
                self.schema = self._reader.schema.remove_metadata()
            else:
                self._reader = arrow.ipc.open_stream(file.file)
                self.schema = self._reader.schema.remove_metadata()
        except (arrow.ArrowException, OSError) as error:
            raise StoreError(f"{path} is no Parquet or Arrow file: {error}") from None

    def batches(self) -> Iterator[Any]:
        """All rows, some at a time."""
        try:
            if hasattr(self._reader, "iter_batches"):
                yield from self._reader.iter_batches(batch_size=_ROWS)
            elif hasattr(self._reader, "num_record_batches"):
                for number in range(self._reader.num_record_batches):
                    yield self._reader.get_batch(number)
            else:
                yield from self._reader
        except (self._arrow.ArrowException, OSError) as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from None

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *error: object) -> None:
        if hasattr(self._reader, "close"):
            self._reader.close()


def load() -> Any:
    """The module pyarrow.

    Raises:
        SetupError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise SetupError(
            "Parquet and Arrow files need pyarrow; pip install 'pydec-train[data]', or add the files as they "
            "are with --format files"
        ) from None
    return pyarrow


def _fields(name: str, kind: Any) -> Iterator[Field]:
    types = load().types
    if types.is_struct(kind):
        for part in kind:
            yield from _fields(f"{name}.{part.name}", part.type)
    elif types.is_string(kind) or types.is_large_string(kind):
        yield Field(name, Kind.TEXT)
    elif types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        yield Field(name, Kind.BYTES)
    else:
        shape: tuple[int, ...] = ()
        while types.is_fixed_size_list(kind):
            shape, kind = (*shape, kind.list_size), kind.value_type
        if not shape and (types.is_list(kind) or types.is_large_list(kind)):
            shape, kind = (0,), kind.value_type
        yield Field(name, Kind.ARRAY, _dtype(name, kind), shape)


def _dtype(name: str, kind: Any) -> str:
    found = {"double": "float64", "float": "float32", "halffloat": "float16"}.get(str(kind), str(kind))
    if found not in DTYPES:
        raise StoreError(
            f"column {name} holds {kind}; a data set holds text, bytes, {', '.join(DTYPES)} and lists of "
            "these; convert it, or add the files as they are with --format files"
        )
    return found


def _values(column: Any, name: str, path: Path) -> list[Sequence[Buffer]]:
    """For each field of a column the bytes of every row."""
    types = load().types
    if column.null_count:
        raise StoreError(f"{path}: column {name} has missing values; fill them or leave the column out")
    kind = column.type
    if types.is_struct(kind):
        found: list[Sequence[Buffer]] = []
        for number, part in enumerate(kind):
            found += _values(column.field(number), f"{name}.{part.name}", path)
        return found
    if types.is_string(kind) or types.is_large_string(kind):
        return [[value.encode() for value in column.to_pylist()]]
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [column.to_pylist()]
    if types.is_list(kind) or types.is_large_list(kind):
        ends = column.offsets.to_numpy()
        flat = _numbers(column.values, name, path)
        return [[memoryview(flat[a:b]).cast("B") for a, b in pairwise(ends)]]
    rows = len(column)
    while types.is_fixed_size_list(column.type):
        column = column.flatten()
    flat = _numbers(column, name, path)
    raw, size = flat.tobytes(), flat.nbytes // rows if rows else 0
    return [[raw[at : at + size] for at in range(0, len(raw), size)] if size else []]


def _numbers(column: Any, name: str, path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    if column.null_count:
        raise StoreError(f"{path}: column {name} has missing values; fill them or leave the column out")
    found = np.asarray(column.to_numpy(zero_copy_only=False))
    return np.ascontiguousarray(found, found.dtype.newbyteorder("<"))
