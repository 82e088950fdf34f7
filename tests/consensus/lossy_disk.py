"""A disk in memory that fails at a chosen call, and that forgets at a crash what was not synced."""

from __future__ import annotations

import errno
import random
from pathlib import Path

from pydec.disk import Disk

SECTOR_BYTES = 512


class Crash(BaseException):
    """The machine stops; no handler of the program runs on."""


class File:
    """What is on the disk for sure, and the writes that may or may not have got there."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.durable = b""
        self.pending: list[tuple[int, bytes]] = []

    def after_crash(self, rng: random.Random, sector: int) -> bytes:
        """Any subset of the pending sectors; the length grows only with a sector that arrived."""
        data = bytearray(self.durable)
        for offset, written in self.pending:
            at = offset
            while at < offset + len(written):
                end = min(offset + len(written), (at // sector + 1) * sector)
                if rng.random() < 0.5:
                    data.extend(bytes(max(0, end - len(data))))
                    data[at:end] = written[at - offset : end - offset]
                at = end
        return bytes(data)


class LossyDisk(Disk):
    """Files in memory.

    Of the calls that change something number ``fail_at`` raises ``error``, or stops the machine, half-way.
    ``whole`` says whether the file system can be synced as one.
    """

    def __init__(
        self, seed: int = 0, fail_at: int = -1, error: int | None = None, whole: bool = True
    ) -> None:
        self.rng, self.whole = random.Random(seed), whole
        self.fail_at, self.error, self.calls = fail_at, error, 0
        self.files: dict[Path, File] = {}
        self.durable_names: dict[Path, File] = {}
        self.opened: dict[int, File] = {}
        self.locked: dict[int, bool] = {}  # whether it is shared
        self.tear_bytes = SECTOR_BYTES

    def put(self, path: Path, data: bytes) -> None:
        """A file with this content, durable with its name."""
        file = self.files[path] = self.durable_names[path] = File()
        file.seen, file.durable = bytearray(data), data

    def crash(self) -> None:
        """Lose what was not synced. Of unsynced names, a drawn choice of old and new stays."""
        names = self.files if self.rng.random() < 0.5 else self.durable_names
        for file in set(names.values()):
            file.durable = file.after_crash(self.rng, self.tear_bytes)
            file.seen, file.pending = bytearray(file.durable), []
        self.files, self.durable_names, self.opened, self.fail_at = dict(names), dict(names), {}, -1
        self.locked = {}

    def _changes(self) -> bool:
        """Whether this is the call that fails."""
        self.calls += 1
        return self.calls - 1 == self.fail_at

    def _stop(self):
        raise Crash if self.error is None else OSError(self.error, "injected")

    def open(self, path, *, write=True, create=False):
        if create and path in self.files:
            raise FileExistsError(errno.EEXIST, "exists")
        if not create and path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if create:
            if self._changes():
                self._stop()
            self.files[path] = File()
        descriptor = 1 + max(self.opened, default=0)
        self.opened[descriptor] = self.files[path]
        return descriptor

    def close(self, descriptor):
        self.opened.pop(descriptor, None)
        self.locked.pop(descriptor, None)

    def size(self, descriptor):
        return len(self.opened[descriptor].seen)

    def read(self, descriptor, n_bytes, offset):
        return bytes(self.opened[descriptor].seen[offset : offset + n_bytes])

    def read_whole(self, path, most, *, again=False):
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return bytes(self.files[path].seen[: most + 1])

    def names(self, path):
        return sorted({name.parts[len(path.parts)] for name in self.files if path in name.parents})

    def write(self, descriptor, data, offset):
        fails = self._changes()
        # A crash loses any sectors of it, see after_crash; an error may come after any byte.
        part = data[: self.rng.randrange(len(data) + 1)] if fails and self.error else data
        file = self.opened[descriptor]
        file.seen.extend(bytes(max(0, offset + len(part) - len(file.seen))))
        file.seen[offset : offset + len(part)] = part
        file.pending.append((offset, bytes(part)))
        if fails:
            self._stop()

    def write_new(self, path, data):
        descriptor = self.open(path, create=True)
        self.write(descriptor, data, 0)
        return descriptor

    def truncate(self, descriptor, n_bytes):
        if self._changes():
            self._stop()
        file = self.opened[descriptor]
        del file.seen[n_bytes:]
        file.pending = [
            (offset, data[: n_bytes - offset]) for offset, data in file.pending if offset < n_bytes
        ]
        file.durable = file.durable[:n_bytes]

    def sync(self, descriptor):
        if self._changes():
            self._stop()
        file = self.opened[descriptor]
        file.durable, file.pending = bytes(file.seen), []

    def sync_file_system(self, descriptor):
        if self.whole:
            if self._changes():
                self._stop()
            for file in self.files.values():
                file.durable, file.pending = bytes(file.seen), []
            self.durable_names = dict(self.files)
        return self.whole

    def lock(self, descriptor, *, shared=False):
        file = self.opened[descriptor]
        for other in self.locked.keys() & self.opened.keys():
            if self.opened[other] is file and not (shared and self.locked[other]):
                raise BlockingIOError(errno.EAGAIN, "locked")
        self.locked[descriptor] = shared

    def make_directory(self, path):
        pass

    def new_directory(self, path):
        pass

    def rename(self, source, target):
        if self._changes():
            self._stop()
        self.files[target] = self.files.pop(source)

    def remove(self, path):
        self.files.pop(path, None)

    def exists(self, path):
        return path in self.files

    def open_directory(self, path):
        return 0

    def sync_directory(self, path):
        if self._changes():
            self._stop()
        self.durable_names = dict(self.files)
