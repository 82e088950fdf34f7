"""Objects on disk: up to 4 MiB of bytes, named by their BLAKE3, whole or not there, and never trusted unread.

    objects/ab/abcd...       the object of that name
    quarantine/abcd...-N     what had a name and was not it

An object is written under a temporary name in its own directory, synced, renamed, and the directory synced.
``put`` does the first, ``commit`` the rest for all that was put since, so that many files wait for the disk
together. There is no index beside the directories: their names are one, which cannot disagree with them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from blake3 import blake3

from pydec.disk import DISK, Buffer, Disk, naming
from pydec.errors import ChunkError, StoreError
from pydec.store.syncing import at_once, sync_files, sync_names

MOST_BYTES = 4 << 20
"""Of one object."""
T = TypeVar("T")
_SYNCS = 4  # files that wait for the disk at the same time
_MOST_OPEN, _MOST_READ = 64, 1 << 16


class Reader(Protocol):
    """Where objects come from: a disk, or a disk and peers behind it."""

    def get(self, digest: bytes) -> bytes:
        """The object of that name, verified.

        Raises:
            ChunkError: it is not to be had.
        """


def digest_of(data: Buffer) -> bytes:
    """The name of an object, 32 bytes."""
    return blake3(data).digest()


class Objects:
    """The objects below a directory.

    Several processes may read and put at once; only who holds the store's lock removes.

    Args:
        directory: of the store; ``create`` makes what is missing in it.
        disk: the file system.
        syncs: files that wait for the disk at the same time; 1 starts no thread.

    Attributes:
        base: the directory they are in.
    """

    def __init__(self, directory: Path, disk: Disk = DISK, syncs: int = _SYNCS) -> None:
        self.base, self._quarantine, self._disk = directory / "objects", directory / "quarantine", disk
        self._made: set[Path] = set()
        self._read: set[bytes] = set()  # with ``again``
        self._batch, self._syncs = self.batch(), syncs
        self._pool: ThreadPoolExecutor | None = None

    def batch(self) -> Batch:
        """For objects that are committed apart from those of ``put``."""
        return Batch(self, self._disk)

    def make_folder(self, path: Path) -> bool:
        """See that a folder of objects is there, which may not be on the disk; whether that is news."""
        if path in self._made:
            return False
        self._disk.new_directory(path)
        self._made.add(path)
        return True

    def create(self) -> None:
        """Make the directories.

        Raises:
            StoreError: they cannot be made.
        """
        for path in (self.base, self._quarantine):
            with naming(path, "made", StoreError):
                self._disk.make_directory(path)

    def path(self, digest: bytes) -> Path:
        """Where an object is, if it is here."""
        name = digest.hex()
        return self.base / name[:2] / name

    def has(self, digest: bytes) -> bool:
        """Whether the name is here, which does not say that the bytes are right."""
        return self._disk.exists(self.path(digest))

    def get(self, digest: bytes, *, again: bool = True) -> bytes:
        """An object, verified; one that is damaged goes to quarantine.

        Args:
            digest: its name.
            again: it will be read again before long; see ``Disk.read_whole``.

        Raises:
            ChunkError: it is missing or damaged.
            StoreError: the disk does not give it.
        """
        path = self.path(digest)
        with naming(path, "read", StoreError):
            try:
                data = self._disk.read_whole(path, MOST_BYTES, again=again and digest not in self._read)
            except FileNotFoundError:
                raise ChunkError(digest, True, f"object {digest.hex()[:16]} is not in {self.base}") from None
        if len(data) <= MOST_BYTES and blake3(data).digest() == digest:
            if again:
                if len(self._read) >= _MOST_READ:
                    self._read.clear()
                self._read.add(digest)
            return data
        self.quarantine(digest)
        raise ChunkError(
            digest, False, f"{path} is damaged: its {len(data)} bytes are not what its name says; moved away"
        )

    def peek(self, digest: bytes, offset: int, n_bytes: int) -> bytes | None:
        """Bytes of an object as they lie on the disk, which nobody has verified; None if it is not here."""
        try:
            file = self._disk.open(self.path(digest), write=False)
        except OSError:
            return None
        try:
            return self._disk.read(file, n_bytes, offset)
        except OSError:
            return None
        finally:
            self._disk.close(file)

    def put(self, data: Buffer) -> bytes:
        """Write an object; it is here for sure once ``commit`` has returned.

        Every so often this commits by itself, as open files are few.

        Args:
            data: 1 to ``MOST_BYTES`` bytes; not kept.

        Returns:
            Its name.

        Raises:
            StoreError: the disk is full or fails; nothing that was put since the last commit counts.
        """
        digest = self._batch.put(data)
        if len(self._batch) >= _MOST_OPEN:
            self.commit()
        return digest

    def commit(self) -> None:
        """Return when all that was put is on the disk, with its names.

        Raises:
            StoreError: the disk is full or fails; nothing that was put since the last commit counts.
        """
        self._batch.commit()

    def abandon(self) -> None:
        """Give up what was put since the last commit."""
        self._batch.abandon()

    def adopt(self, digest: bytes, data: Buffer) -> None:
        """Put an object that came from elsewhere, and commit it; from any thread.

        Raises:
            ChunkError: it is not the object of that name; nothing was written.
            StoreError: the disk is full or fails.
        """
        if len(data) > MOST_BYTES or digest_of(data) != digest:
            raise ChunkError(digest, False, f"{len(data)} bytes came in place of object {digest.hex()[:16]}")
        self.keep(data)

    def keep(self, data: Buffer) -> None:
        """Put one object and commit it, apart from all that was put; from any thread.

        Raises:
            StoreError: the disk is full or fails.
        """
        batch = self.batch()
        batch.put(data)
        batch.commit()

    def quarantine(self, digest: bytes) -> None:
        """Move a file away that is not what its name says; where the disk cannot, it stays."""
        path = self.path(digest)
        number = len([name for name in self._disk.names(self._quarantine) if name.startswith(path.name)])
        with contextlib.suppress(OSError):
            self._disk.rename(path, self._quarantine / f"{path.name}-{number}")

    def remove(self, digest: bytes) -> None:
        """Remove an object, if it is here.

        Raises:
            StoreError: the disk does not let it.
        """
        with naming(self.path(digest), "removed", StoreError):
            self._disk.remove(self.path(digest))

    def size(self, digest: bytes) -> int:
        """Bytes of an object as they lie on the disk; 0 if it is not here."""
        with naming(self.path(digest), "read", StoreError):
            try:
                descriptor = self._disk.open(self.path(digest), write=False)
            except FileNotFoundError:
                return 0
            try:
                return self._disk.size(descriptor)
            finally:
                self._disk.close(descriptor)

    def names(self) -> Iterator[bytes]:
        """The names of all objects that are here, sorted."""
        for folder in self._disk.names(self.base):
            for name in self._disk.names(self.base / folder):
                if len(name) == 64 and name[:2] == folder:
                    with contextlib.suppress(ValueError):
                        yield bytes.fromhex(name)

    def sweep(self) -> None:
        """Remove what writers that were killed have left; only who holds the store's lock may.

        Raises:
            StoreError: the disk does not let it.
        """
        for path in self._temporary():
            with naming(path, "removed", StoreError):
                self._disk.remove(path)

    def leftovers(self) -> list[Path]:
        """Files that are no objects: of writers that were killed, and what is in quarantine."""
        damaged = [self._quarantine / name for name in self._disk.names(self._quarantine)]
        return [*self._temporary(), *damaged]

    def _temporary(self) -> list[Path]:
        """Files of writers that no longer live."""
        return [
            self.base / folder / name
            for folder in self._disk.names(self.base)
            for name in self._disk.names(self.base / folder)
            if name.endswith(".tmp") and not _of_another(name)
        ]

    def close(self) -> None:
        """Give up what was not committed, and end the threads; idempotent."""
        self.abandon()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    @property
    def threaded(self) -> bool:
        """Whether ``submit`` starts threads."""
        return self._syncs > 1

    def submit(self, action: Callable[..., T], *values: object) -> Future[T]:
        """Do something in a thread that may wait for the disk; at once where there are none."""
        if self._syncs == 1:
            return at_once(action, *values)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._syncs, "pydec-disk")
        return self._pool.submit(action, *values)


class Batch:
    """Objects that become durable together; several threads may put, while none commits or abandons.

    Args:
        objects: where they go.
        disk: its file system.
    """

    def __init__(self, objects: Objects, disk: Disk) -> None:
        self._objects, self._disk = objects, disk
        self._pending: dict[bytes, tuple[int, Path]] = {}  # descriptor and temporary name
        self._begun: set[bytes] = set()
        self._unsynced: set[Path] = set()  # directories with names that may not be on the disk yet
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, data: Buffer) -> bytes:
        """See ``Objects.put``."""
        if not 0 < len(data) <= MOST_BYTES:
            raise ValueError(f"an object has 1 to {MOST_BYTES} bytes, got {len(data)}")
        digest = digest_of(data)
        with self._lock:
            if digest in self._begun:
                return digest
            self._begun.add(digest)
        path = self._objects.path(digest)
        if self._same(path, digest, data):
            return digest
        temporary = path.with_name(f".{path.name[:16]}.{os.getpid()}-{id(self):x}.tmp")
        try:
            with naming(path, "written", StoreError):
                if self._objects.make_folder(path.parent):
                    with self._lock:
                        self._unsynced.add(self._objects.base)
                try:
                    descriptor = self._write_new(temporary, data)
                except OSError:
                    with contextlib.suppress(OSError):
                        self._disk.remove(temporary)
                    raise
        except StoreError:
            self.abandon()
            raise
        with self._lock:
            self._pending[digest] = descriptor, temporary
        return digest

    def commit(self) -> None:
        """See ``Objects.commit``."""
        try:
            with naming(self._objects.base, "written", StoreError):
                descriptors = [descriptor for descriptor, _ in self._pending.values()]
                sync_files(self._disk, descriptors, self._objects.submit)
                for digest, (descriptor, temporary) in list(self._pending.items()):
                    path = self._objects.path(digest)
                    self._disk.close(descriptor)
                    del self._pending[digest]
                    try:
                        self._disk.rename(temporary, path)
                    except OSError:
                        self._disk.remove(temporary)
                        raise
                    self._unsynced.add(path.parent)
                sync_names(self._disk, self._objects.base, sorted(self._unsynced), self._objects.submit)
                self._unsynced.clear()
                self._begun.clear()
        except StoreError:
            self.abandon()
            raise

    def abandon(self) -> None:
        """See ``Objects.abandon``."""
        with self._lock:
            pending = list(self._pending.values())
            self._pending.clear()
            self._begun.clear()
        for descriptor, temporary in pending:
            with contextlib.suppress(OSError):
                self._disk.close(descriptor)
            with contextlib.suppress(OSError):
                self._disk.remove(temporary)

    def _same(self, path: Path, digest: bytes, data: Buffer) -> bool:
        """Whether the object is here, right to the last byte; it may not be on the disk before a commit."""
        if not self._disk.exists(path):
            return False
        try:
            same = self._disk.read_whole(path, MOST_BYTES) == data
        except OSError:
            same = False
        if same:
            with self._lock:
                self._unsynced.add(path.parent)
        else:
            self._objects.quarantine(digest)
        return same

    def _write_new(self, temporary: Path, data: Buffer) -> int:
        """A temporary file, in place of one that a killed process of the same number may have left."""
        try:
            return self._disk.write_new(temporary, data)
        except FileExistsError:
            self._disk.remove(temporary)
            return self._disk.write_new(temporary, data)


def _of_another(temporary: str) -> bool:
    """Whether a temporary file is of another process that lives, by its name, and so may still be written."""
    owner = temporary.removesuffix(".tmp").rpartition(".")[2].partition("-")[0]
    if not owner.isdecimal() or int(owner) == os.getpid():
        return False
    try:
        os.kill(int(owner), 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # another user's
    return True
