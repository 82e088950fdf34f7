"""Any folder of files: each file is a sample, with its path; an image folder's subfolders are its classes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from blake3 import blake3

from pydec.errors import StoreError
from pydec.store.inputs.base import READ_BYTES, Sample, Span, Watched, mark_of
from pydec.store.manifest import Field, Kind, Source

IMAGES = (b".bmp", b".gif", b".jpeg", b".jpg", b".png", b".ppm", b".tif", b".tiff", b".webp")

Entry = tuple[bytes, os.stat_result]
"""Path below the folder, and what the system says of the file."""


class Files:
    """A folder, or one file, sample by sample in the order of the paths' bytes.

    Links to files are followed, links to folders are refused, and so is what is neither file nor folder.
    Memory: the names in the folders on the way, and a file of up to 1 MiB.

    Args:
        path: of the folder or file.
        labelled: whether the first folder of a path is the sample's class.

    Raises:
        StoreError: something in it cannot be read, or has no class.
    """

    def __init__(self, path: Path, labelled: bool = False) -> None:
        self._path, self._labelled = os.fsencode(path), labelled
        self.kind = "images" if labelled else "files"
        self.fields: tuple[Field, ...] = (Field("path", Kind.BYTES), Field("content", Kind.BYTES))
        self.classes: tuple[str, ...] = ()
        if labelled:
            self.fields += (Field("label", Kind.ARRAY, "int64"),)
            self.classes = tuple(_text(name) for name, _, is_folder in _listed(self._path) if is_folder)
        self.n_bytes = 0
        self._found = blake3()
        for entry in self._walk():
            self.n_bytes += entry[1].st_size
            self._found.update(_words(entry))
        self.fingerprint = self._found.digest()

    def blocks(self, start: int) -> Iterator[Sample]:
        """See ``Input.blocks``."""
        seen = blake3()
        for number, entry in enumerate(self._walk()):
            seen.update(_words(entry))
            if number >= start:
                yield from self._sample(entry)
        if seen.digest() != self.fingerprint:
            raise _changed(self._path)

    def sources(self) -> tuple[Source, ...]:
        """See ``Input.sources``: the samples are the files."""
        return ()

    def _sample(self, entry: Entry) -> Iterator[Sample]:
        path, status = entry
        label: tuple[bytes, ...] = ()
        if self._labelled:
            name = _text(path.split(b"/")[0])
            label = (np.int64(self.classes.index(name)).astype("<i8").tobytes(),)
        whole = os.path.join(self._path, path) if os.path.isdir(self._path) else self._path
        with Watched(whole, mark_of(status)) as file:
            if status.st_size <= READ_BYTES:
                content = b"".join(file.pieces())
                yield Sample((path, content, *label))
            else:
                yield Sample((path, Span(status.st_size, file.read_at), *label))
                file.check()

    def _walk(self) -> Iterator[Entry]:
        if not os.path.isdir(self._path):
            yield os.path.basename(self._path), _status(self._path)
            return
        yield from self._below(b"")

    def _below(self, folder: bytes) -> Iterator[Entry]:
        here = os.path.join(self._path, folder)
        mark = mark_of(_status(here))
        for name, link, is_folder in _listed(here):
            path = os.path.join(folder, name)
            whole = os.path.join(self._path, path)
            if is_folder and not link:
                yield from self._below(path)
                continue
            status = _status(whole)
            if not stat.S_ISREG(status.st_mode):
                what = "a link to a folder" if stat.S_ISDIR(status.st_mode) else "neither a file nor a folder"
                raise StoreError(f"{os.fsdecode(whole)!r} is {what}; move it away")
            if self._labelled and not folder:
                raise StoreError(
                    f"{os.fsdecode(whole)!r} is in no class's folder; move it away, or use --format files"
                )
            yield path, status
        if mark_of(_status(here)) != mark:
            raise _changed(here)


def is_image_folder(path: Path) -> bool:
    """Whether a folder holds folders alone, and these images alone, as far as their first entries say."""
    entries = _listed(os.fsencode(path))
    if not entries or not all(is_folder for _, _, is_folder in entries):
        return False
    for name, _, _ in entries:
        inside = _listed(os.path.join(os.fsencode(path), name))
        if not inside or not all(
            name.lower().endswith(IMAGES) and not is_folder for name, _, is_folder in inside[:100]
        ):
            return False
    return True


def _listed(folder: bytes) -> list[tuple[bytes, bool, bool]]:
    """Names in a folder, sorted: whether each is a link, and whether it is, or leads to, a folder."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name, entry.is_symlink(), entry.is_dir()) for entry in entries)
    except OSError as error:
        raise StoreError(f"{os.fsdecode(folder)!r} cannot be read: {error.strerror}") from None


def _status(path: bytes) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise StoreError(f"{os.fsdecode(path)!r} cannot be read: {error.strerror}") from None


def _changed(path: bytes) -> StoreError:
    return StoreError(
        f"{os.fsdecode(path)!r} changed while it was being added: files came, went or were written: add it "
        "again "
        "once it rests"
    )


def _words(entry: Entry) -> bytes:
    return len(entry[0]).to_bytes(4, "big") + entry[0] + mark_of(entry[1]) + b"\0"


def _text(name: bytes) -> str:
    """A class's name for people; bytes that are no UTF-8 become escapes."""
    return name.decode("utf-8", "backslashreplace")
