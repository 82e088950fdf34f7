"""The directory of one run: config first, metrics while it goes, a summary whatever happens.

Single files are replaced whole (temporary file, fsync, rename); metrics are appended line by line and
reach the disk at a bounded interval, so a killed run loses at most ``FLUSH_S`` seconds of them.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from pydec.errors import ConfigError, SetupError

FLUSH_S = 2.0
ROW_BYTES = 300  # more than a metrics row takes
_RESERVE_BYTES = 1 << 20


class RunDir:
    """Paths and writers of one run directory.

    Args:
        path: the directory; ``create`` or ``join`` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, needed_bytes: int) -> None:
        """Make the directory for a new run and try to write in it; rank 0 does this before any work.

        Args:
            needed_bytes: what the run is going to write.

        Raises:
            ConfigError: it holds a run already, or is a file.
            SetupError: it cannot be written, or its file system is too full.
        """
        self._refuse_old()
        try:
            (self.path / "metrics").mkdir(parents=True, exist_ok=True)
            (self.path / "checkpoints").mkdir(exist_ok=True)
            status = os.statvfs(self.path)
            free = status.f_bavail * status.f_frsize
            if free < needed_bytes + _RESERVE_BYTES:
                raise SetupError(
                    f"run directory {self.path}: its file system has {free / 1e6:.1f} MB left, this run "
                    f"needs about {(needed_bytes + _RESERVE_BYTES) / 1e6:.1f} MB; free some, or choose "
                    "another with --run-dir"
                )
            probe = self.path / ".probe"
            probe.write_bytes(b"\0" * 4096)
            probe.unlink()
        except OSError as error:
            raise self._failure(error) from error

    def join(self) -> None:
        """Make what a rank other than 0 needs; on a shared file system it is there already.

        Raises:
            ConfigError, SetupError: as for ``create``.
        """
        try:
            (self.path / "metrics").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failure(error) from error

    def reopen(self, rank: int, step: int) -> None:
        """Make what a rank needs to go on; cut what it recorded of later steps, and what it said at the end.

        Raises:
            SetupError: it cannot be written.
        """
        try:
            (self.path / "metrics").mkdir(parents=True, exist_ok=True)
            (self.path / "summary.json").unlink(missing_ok=True)
            record = self.path / "metrics" / f"rank-{rank}.jsonl"
            lines = record.read_bytes().splitlines(keepends=True) if record.exists() else []
        except OSError as error:
            raise self._failure(error) from error
        kept = [line for line in lines if _step_of(line) <= step]
        if kept != lines:
            self.write_with(f"metrics/{record.name}", lambda file: file.writelines(kept))

    def holds(self, name: str, content: Mapping[str, Any]) -> bool:
        """Whether a JSON file is there and has the same options."""
        try:
            found = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("options") == content["options"]

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write one JSON file whole or not at all.

        Raises:
            SetupError: the disk is full or the directory is gone.
        """
        text = json.dumps(finite(dict(content)), indent=2, allow_nan=False) + "\n"
        self.write_with(name, lambda file: file.write(text.encode()))

    def write_with(self, name: str, fill: Callable[[BinaryIO], Any]) -> None:
        """Write one file, whole or not at all, with what ``fill(file)`` puts in.

        Raises:
            SetupError: the disk is full or the directory is gone.
        """
        target = self.path / name
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            directory = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._failure(error) from error

    def metrics(self, rank: int) -> Metrics:
        """The open record of one rank.

        Raises:
            SetupError: it cannot be opened.
        """
        try:
            return Metrics(self.path / "metrics" / f"rank-{rank}.jsonl", self._failure)
        except OSError as error:
            raise self._failure(error) from error

    def observed(self, rank: int) -> Metrics:
        """The open record of what an observer is told.

        Raises:
            SetupError: it cannot be opened.
        """
        try:
            (self.path / "observed").mkdir(parents=True, exist_ok=True)
            return Metrics(self.path / "observed" / f"rank-{rank}.jsonl", self._failure)
        except OSError as error:
            raise self._failure(error) from error

    def _refuse_old(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"run directory {self.path} is a file; choose another with --run-dir")
        for name in ("config.json", "summary.json", "metrics"):
            if (self.path / name).exists():
                raise ConfigError(
                    f"run directory {self.path} already holds a run ({name}); choose another with "
                    f"--run-dir, move this one away, or go on with it: pydec train --resume {self.path}"
                )

    def _failure(self, error: OSError) -> SetupError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return SetupError(
                f"run directory {self.path}: the disk is full ({error.strerror}); what was written before is "
                "kept; free some space, or choose another directory with --run-dir"
            )
        return SetupError(
            f"run directory {self.path} cannot be written: {error.strerror or error}; choose another with "
            "--run-dir, or change its permissions"
        )


class Metrics:
    """Append-only record of one rank, one JSON object a line; also a context manager.

    Args:
        path: file to append to.
        failure: makes the exception for an OSError.

    Attributes:
        also: each is called with every line as well.
    """

    def __init__(self, path: Path, failure: Callable[[OSError], SetupError]) -> None:
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115  # lives as long as this object
        self._failure = failure
        self.also: list[Callable[[bytes], None]] = []
        self._encoder = msgspec.json.Encoder()
        self._lines = bytearray()
        self._written_s = time.monotonic()

    def add(self, row: Mapping[str, float | int | str | None]) -> None:
        """Append one object; NaN and infinities become null.

        Raises:
            SetupError: the disk is full.
        """
        line = self._encoder.encode(finite(dict(row))) + b"\n"
        self._lines += line
        for sink in self.also:
            sink(line)
        if time.monotonic() - self._written_s >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the operating system.

        Raises:
            SetupError: the disk is full.
        """
        self._written_s = time.monotonic()
        try:
            while self._lines:
                del self._lines[: self._file.write(self._lines)]
        except OSError as error:
            self._lines.clear()
            raise self._failure(error) from error

    def close(self) -> None:
        """Flush and close; idempotent."""
        if not self._file.closed:
            try:
                self.flush()
            finally:
                self._file.close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _step_of(line: bytes) -> float:
    """The step that a line of metrics is of; infinity for one that was cut."""
    try:
        return float(msgspec.json.decode(line)["step"])
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        return math.inf


def finite(row: dict[str, Any]) -> dict[str, Any]:
    """``row`` with numbers that JSON has no word for as None, at every depth."""
    clean: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            clean[key] = finite(value)
        elif isinstance(value, float) and not math.isfinite(value):
            clean[key] = None
        else:
            clean[key] = value
    return clean
