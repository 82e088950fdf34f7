"""Text files: each line is a sample, with its line feed, so that all lines together are the file again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pydec.errors import StoreError
from pydec.store.inputs.base import Run, Tee, Watched, fingerprint
from pydec.store.manifest import Field, Kind, Source

_MOST_LINE_BYTES = 1 << 26


class Lines:
    """Text files, line by line.

    Args:
        paths: of the files.
        base: what their names are relative to.

    Raises:
        StoreError: one is not there.
    """

    kind = "text"
    fields: tuple[Field, ...] = (Field("text", Kind.TEXT),)
    classes: tuple[str, ...] = ()

    def __init__(self, paths: list[Path], base: Path) -> None:
        self._paths, self._base = sorted(paths), base
        self.fingerprint = fingerprint(self._paths, self.kind)
        self.n_bytes = sum(path.stat().st_size for path in self._paths)
        self._sources: list[Source] = []

    def blocks(self, start: int) -> Iterator[Run]:
        """See ``Input.blocks``; all is read again, as the files' digests need it."""
        self._sources, first = [], 0
        for path in self._paths:
            tee, here = Tee(), 0
            with Watched(path) as file:
                for run in self._runs(file, tee):
                    count = len(run.sizes)
                    if first + here + count > start:
                        yield run.after(max(0, start - first - here))
                    here += count
            name = os.fsencode(path.relative_to(self._base))
            self._sources.append(Source(name, b"", 0, first, here, tee.n_bytes, tee.digest))
            first += here

    def sources(self) -> tuple[Source, ...]:
        """See ``Input.sources``."""
        return tuple(self._sources)

    def _runs(self, file: Watched, tee: Tee) -> Iterator[Run]:
        rest, line = b"", 1
        for piece in file.pieces():
            tee.update(piece)
            end = piece.rfind(b"\n") + 1
            if not end:
                rest += piece
                if len(rest) > _MOST_LINE_BYTES:
                    raise StoreError(
                        f"{file.path!r}: line {line} is longer than {_MOST_LINE_BYTES} bytes; add it with "
                        "--format "
                        "files"
                    )
                continue
            run = _run(rest + piece[:end], file.path, line)
            yield run
            line += len(run.sizes)
            rest = piece[end:]
        if rest:
            yield _run(rest, file.path, line)


def _run(data: bytes, path: str, line: int) -> Run:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line += data[: error.start].count(b"\n")
        raise StoreError(f"{path!r}: line {line} is not UTF-8; convert it, or use --format files") from None
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    if not len(ends) or ends[-1] != len(data):
        ends = np.append(ends, len(data))
    sizes = np.diff(ends, prepend=0).astype(np.int64)
    return Run(data, sizes, sizes.reshape(-1, 1))
