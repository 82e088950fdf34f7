"""Give the original bytes of a data set back, verified, and whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pydec.disk import Buffer, naming
from pydec.errors import ConfigError, StoreError
from pydec.store.inputs.base import Tee
from pydec.store.manifest import DTYPES, NO_DIGEST, Field, Kind, Source
from pydec.store.reading import Samples, decode

Progress = Callable[[int], None]
_ROWS = 1024  # of a batch of a table


def export(samples: Samples, target: Path, *, progress: Progress = lambda n_bytes: None) -> int:
    """Write the files that a data set was made of into a new folder.

    Files come back with the bytes that they had, which every chunk's name proves, and for arrays and text the
    digest of the whole file too; compressed ones come back unpacked, tables as one Parquet file of the
    same rows. Nothing but content and names is kept: no times, owners or permissions.

    Args:
        samples: of the data set.
        target: the folder; it must not exist.
        progress: called with the bytes written so far.

    Returns:
        How many files there are.

    Raises:
        ConfigError: ``target`` exists, or the data set was made by a function and has no files.
        ChunkError: a chunk is not to be had.
        StoreError: a digest is wrong, a path leads out of the folder, or the disk is full. In all cases
            ``target`` is not there.
    """
    head = samples.manifest.head
    if head.kind == "samples":
        raise ConfigError(
            f"data set {head.name} was made of what a function returned and has no files to give back; read "
            "it "
            "with pydec.store.Dataset"
        )
    if target.exists():
        raise ConfigError(f"{target} exists already; name a folder that does not")
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with naming(target, "written", StoreError):
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            if head.kind == "arrow":
                count = _table(samples, beside, progress)
            elif head.sources:
                count = _sources(samples, beside, progress)
            else:
                count = _files(samples, beside, progress)
            beside.rename(target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return count


def _files(samples: Samples, base: Path, progress: Progress) -> int:
    done, extended = 0, samples.manifest.head.policy.parent != NO_DIGEST
    mode = "wb" if extended else "xb"  # what was appended under the same path came later
    for number in range(len(samples)):
        path = base / _inside(b"".join(bytes(piece) for piece in samples.pieces(number, 0)))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, mode) as file:
            for piece in samples.pieces(number, 1):
                file.write(piece)
                done += len(piece)
        progress(done)
    return len(samples)


def _sources(samples: Samples, base: Path, progress: Progress) -> int:
    head, done = samples.manifest.head, 0
    for source in head.sources:
        path, tee = base / _inside(source.path), Tee()
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            for piece in _bytes(samples, source, head.fields[source.field]):
                file.write(piece)
                tee.update(piece)
                progress(done + tee.n_bytes)
        if (tee.n_bytes, tee.digest) != (source.n_bytes, source.digest):
            raise StoreError(
                f"{os.fsdecode(source.path)!r} comes back as {tee.n_bytes} bytes with BLAKE3 "
                f"{tee.digest.hex()[:16]}, it had {source.n_bytes} with {source.digest.hex()[:16]}: the data "
                "set is wrong from its making"
            )
        done += tee.n_bytes
    return len(head.sources)


def _bytes(samples: Samples, source: Source, field: Field) -> Iterator[Buffer]:
    yield source.head
    item = DTYPES[field.dtype] if source.swapped else 1
    for number in range(source.first, source.first + source.samples):
        if not source.swapped:
            yield from samples.pieces(number, source.field)
        else:
            value = samples.raw(number)[source.field]
            yield np.frombuffer(value, f"<u{item}").astype(f">u{item}").tobytes()


def _table(samples: Samples, base: Path, progress: Progress) -> int:
    from pydec.store.inputs.arrow import load

    arrow = load()
    import pyarrow.parquet

    head, done = samples.manifest.head, 0
    schema = arrow.schema([(field.name, _column_type(arrow, field)) for field in head.fields])
    with pyarrow.parquet.ParquetWriter(base / f"{head.name}.parquet", schema) as writer:
        for first in range(0, len(samples), _ROWS):
            rows = [samples.raw(n) for n in range(first, min(first + _ROWS, len(samples)))]
            values = [decode(head.fields, row) for row in rows]
            columns = [
                arrow.array([_plain(row[number]) for row in values], type=schema.field(number).type)
                for number in range(len(head.fields))
            ]
            writer.write_batch(arrow.record_batch(columns, schema=schema))
            done += sum(len(value) for row in rows for value in row)
            progress(done)
    return 1


def _column_type(arrow: Any, field: Field) -> Any:
    if field.kind is not Kind.ARRAY:
        return arrow.binary() if field.kind is Kind.BYTES else arrow.string()
    found = arrow.from_numpy_dtype(np.dtype(field.dtype))
    for size in reversed(field.shape):
        found = arrow.list_(found, size) if size else arrow.list_(found)
    return found


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _inside(path: bytes) -> str:
    """A path that stays in its folder.

    Raises:
        StoreError: it does not.
    """
    parts = path.split(b"/")
    if b"\0" in path or any(part in (b"", b".", b"..") for part in parts):
        raise StoreError(
            f"the data set has a file {path!r}, which leads out of the folder; nothing was written"
        )
    return os.fsdecode(path)
