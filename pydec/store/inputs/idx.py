"""IDX files, plain or gzip-compressed, such as those of MNIST: images and labels by their names.

Source: LeCun, "The MNIST database of handwritten digits": two zero bytes, a type, the number of dimensions,
each dimension as a big-endian 32-bit number, and the numbers, big-endian.
"""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from pydec.errors import StoreError
from pydec.store.inputs.base import Watched
from pydec.store.inputs.columns import Column, Columns, RowFile, field_of

_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
_NAME = re.compile(r"(?P<part>.+?)-(?P<what>[^-]+)-idx\d-\w+")
_WORDS = {"images": "image", "labels": "label"}


class _File:
    """An IDX file's bytes, unpacked."""

    def __init__(self, path: Path) -> None:
        self._path, self._watched = path, Watched(path)
        raw: BinaryIO = self._watched.file
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        self._file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw

    def read(self, n_bytes: int) -> bytes:
        try:
            return self._file.read(n_bytes)
        except (OSError, EOFError, zlib.error) as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from None

    def check(self) -> None:
        self._watched.check()

    def close(self) -> None:
        self._watched.close()


@dataclass(frozen=True)
class _IdxColumn(Column):
    def open(self) -> RowFile:
        file = _File(self.path)
        file.read(len(self.head))
        return file


def idx(paths: list[Path]) -> Columns:
    """Read IDX files; those whose names differ in images and labels alone make samples together.

    Raises:
        StoreError: one is no IDX file, or they do not fit together.
    """
    groups: dict[str, list[Column]] = defaultdict(list)
    for path in sorted(paths):
        found = _NAME.fullmatch(path.name.removesuffix(".gz"))
        part, what = (found["part"], found["what"]) if found else ("", path.name.partition(".")[0])
        groups[part].append(_column(path, _WORDS.get(what, what)))
    return Columns("idx", list(groups.values()))


def is_idx(path: Path) -> bool:
    """Whether a file begins as IDX files do."""
    try:
        file = _File(path)
        try:
            head = file.read(4)
        finally:
            file.close()
    except StoreError:
        return False
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] in _TYPES and 0 < head[3] <= 8


def _column(path: Path, name: str) -> Column:
    file = _File(path)
    try:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or not head[3]:
            raise StoreError(f"{path} is no IDX file: its first bytes are {head.hex()}")
        sizes = file.read(4 * head[3])
    finally:
        file.close()
    if len(sizes) < 4 * head[3]:
        raise StoreError(f"{path} ends in its head: it may be damaged")
    rows, *shape = struct.unpack(f">{head[3]}I", sizes)
    dtype = np.dtype(_TYPES[head[2]])
    field = field_of(name, dtype, shape, path)
    return _IdxColumn(path, path.name.removesuffix(".gz"), head + sizes, field, rows, dtype.itemsize > 1)
