"""NumPy files: the rows of a .npy file, or of all arrays in a .npz file or a folder, by name."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from pydec.errors import StoreError
from pydec.store.inputs.base import Watched
from pydec.store.inputs.columns import Column, Columns, RowFile, field_of

_MOST_HEAD_BYTES = 1 << 16


class _File:
    """The bytes of an array: a file, or a member of an archive."""

    def __init__(self, path: Path, member: str = "") -> None:
        self._path, self._watched = path, Watched(path)
        self._file: BinaryIO = self._watched.file
        if member:
            archive = zipfile.ZipFile(self._watched.file)  # it closes with its member
            self._file = cast("BinaryIO", archive.open(member))

    def read(self, n_bytes: int) -> bytes:
        try:
            return self._file.read(n_bytes)
        except (OSError, EOFError, zipfile.BadZipFile) as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from None

    def check(self) -> None:
        self._watched.check()

    def close(self) -> None:
        self._file.close()
        self._watched.close()


@dataclass(frozen=True)
class _NumpyColumn(Column):
    member: str = ""

    def open(self) -> RowFile:
        file = _File(self.path, self.member)
        file.read(len(self.head))
        return file


def numpy_files(paths: list[Path]) -> Columns:
    """Read NumPy files, all of the same number of rows.

    Raises:
        StoreError: one is no NumPy file, or they do not fit together.
    """
    columns: list[Column] = []
    for path in sorted(paths):
        if path.suffix != ".npz":
            columns.append(_column(path, path.stem))
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise StoreError(f"{path} cannot be read: {error}") from None
        twice = [name for name, times in Counter(members).items() if times > 1]
        if twice or not members:
            raise StoreError(f"{path} has {twice[0] + ' twice' if twice else 'no array'}")
        columns += [_column(path, name.removesuffix(".npy"), name) for name in sorted(members)]
    return Columns("numpy", [columns])


def _column(path: Path, name: str, member: str = "") -> Column:
    file = _File(path, member)
    try:
        start = file.read(_MOST_HEAD_BYTES)
    finally:
        file.close()
    where = path / member if member else path
    stream = io.BytesIO(start)
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"format {version}")
    except ValueError as error:
        raise StoreError(f"{where} is no NumPy file that can be added: {error}") from None
    if not shape:
        raise StoreError(f"{where} holds one number, not rows")
    if fortran and len(shape) > 1:
        raise StoreError(f"{where} is in Fortran's order; save it again with np.ascontiguousarray")
    field = field_of(name, dtype, shape[1:], where)
    export = name if name.endswith(".npy") else f"{name}.npy"
    return _NumpyColumn(path, export, start[: stream.tell()], field, shape[0], not dtype.isnative, member)
