"""The system calls that durable files are made of, in one place so that tests can fail each of them.

A write is durable when ``sync`` has returned, a new name when ``sync_directory`` of its directory has: a
rename without that lost validator state elsewhere (cometbft issue 6031). After a failed sync the page cache
may hold less than the program believes, and a second sync may succeed all the same (Rebello et al., "Can
Applications Recover from fsync Failures?", ATC 2020); so whoever sees one fail gives the file up.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pydec.errors import LedgerError, PydecError

Buffer = bytes | bytearray | memoryview

_PAGE_BYTES = 4096
_PAST_CACHE_BYTES = 1 << 18
_MADV_POPULATE_READ = 22  # of Linux 5.14; Python has no name for it
# Of ext2 to ext4, XFS and Btrfs. With others, syncfs may leave things with a server or another file system.
_SYNCED_WHOLE = frozenset({0xEF53, 0x58465342, 0x9123683E})
_STATFS_BYTES = 256  # more than struct statfs has; its first word is the number above
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
if _libc is not None:
    _libc.mmap.restype, _MAP_FAILED = ctypes.c_void_p, ctypes.c_void_p(-1).value
    _libc.mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long
    _libc.madvise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    _libc.munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Disk:
    """This machine's file system. Every method raises OSError as the system does."""

    def open(self, path: Path, *, write: bool = True, create: bool = False) -> int:
        """A descriptor for reading, and writing unless told otherwise; ``create`` demands a new file."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT | os.O_EXCL if create else 0)
        return os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o600)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Length of the file, bytes."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, n_bytes: int, offset: int) -> bytes:
        """Up to ``n_bytes`` from ``offset``; fewer only at the end of the file."""
        found = bytearray()
        while len(found) < n_bytes:
            piece = os.pread(descriptor, n_bytes - len(found), offset + len(found))
            if not piece:
                break
            found += piece
        return bytes(found)

    def read_whole(self, path: Path, most: int, *, again: bool = False) -> bytes:
        """A file's content, or its first ``most`` + 1 bytes if it is longer.

        Args:
            path: of the file.
            most: bytes.
            again: it will be read again, and is not cached yet: let it be in large pieces of memory where the
                system can, from which later reads copy twice as fast.
        """
        descriptor = self.open(path, write=False)
        try:
            n_bytes = min(os.fstat(descriptor).st_size, most + 1)
            if again and n_bytes >= _PAST_CACHE_BYTES:
                _cache(descriptor, n_bytes)
            found = os.read(descriptor, n_bytes)
            return found if len(found) == n_bytes else self.read(descriptor, n_bytes, 0)
        finally:
            os.close(descriptor)

    def write(self, descriptor: int, data: Buffer, offset: int) -> None:
        """Write all of ``data`` at ``offset``; what a failure leaves behind is any part of it."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, offset)
            view, offset = view[written:], offset + written

    def write_new(self, path: Path, data: Buffer) -> int:
        """A new file with this content, and its descriptor, for ``sync``.

        Long content that begins at a page of memory goes past the page cache where the file system lets it:
        the disk then has it at once, and a sync waits for little.
        """
        view = memoryview(data)
        past = len(view) // _PAGE_BYTES * _PAGE_BYTES if len(view) >= _PAST_CACHE_BYTES else 0
        if past and _address(view) % _PAGE_BYTES:
            past = 0
        descriptor = self.open(path, create=True)
        try:
            if past and _direct(descriptor, True):
                try:
                    self.write(descriptor, view[:past], 0)
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    past = 0  # other rules than a page's for what may go past the cache
                if past < len(view):
                    _direct(descriptor, False)
            else:
                past = 0
            self.write(descriptor, view[past:], past)
        except BaseException:
            self.close(descriptor)
            raise
        return descriptor

    def truncate(self, descriptor: int, n_bytes: int) -> None:
        """Cut the file to ``n_bytes``."""
        os.ftruncate(descriptor, n_bytes)

    def sync(self, descriptor: int) -> None:
        """Return when data and length are on the disk."""
        _fdatasync(descriptor)

    def sync_file_system(self, descriptor: int) -> bool:
        """Return when all that was written to the file system of this file is on the disk, names too.

        Quicker than many files one by one, but it waits for what other programs wrote as well. A file that
        could not be written since this descriptor was opened is an error.

        Returns:
            Whether it did: false, with nothing done, where a file system is not known to wait for everything.
        """
        if _libc is None:
            return False
        status = ctypes.create_string_buffer(_STATFS_BYTES)
        if _libc.fstatfs(descriptor, status) or ctypes.c_long.from_buffer(status).value not in _SYNCED_WHOLE:
            return False
        if _libc.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return True

    def lock(self, descriptor: int, *, shared: bool = False) -> None:
        """Lock the file until it is closed, however its process ends; BlockingIOError if another has it.

        Those who share it keep out nobody but who wants it alone.
        """
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def make_directory(self, path: Path) -> None:
        """Make a directory in one that exists, unless it is there; durable with its name."""
        if not path.is_dir():
            path.mkdir()
            self.sync_directory(path.parent)

    def new_directory(self, path: Path) -> None:
        """The same, durable with the next sync of the one that it is in."""
        path.mkdir(exist_ok=True)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, replacing what has it."""
        os.replace(source, target)

    def remove(self, path: Path) -> None:
        """Remove a name, if it is there."""
        path.unlink(missing_ok=True)

    def names(self, path: Path) -> list[str]:
        """What is in a directory, sorted; nothing if it is not there."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def exists(self, path: Path) -> bool:
        """Whether the name is there."""
        return path.exists()

    def open_directory(self, path: Path) -> int:
        """A descriptor of a directory, for ``sync_file_system``."""
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def sync_directory(self, path: Path) -> None:
        """Return when the names in a directory are on the disk."""
        descriptor = self.open_directory(path)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK = Disk()

C = TypeVar("C", bound="Closing")


class Closing:
    """A context manager that ends with ``close``."""

    def close(self) -> None:
        """Give back what is held; idempotent."""
        raise NotImplementedError

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OpenFile(Closing):
    """What holds one descriptor; subclasses open it."""

    _disk: Disk
    _file: int

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._file >= 0:
            self._disk.close(self._file)
            self._file = -1


def create_whole(disk: Disk, path: Path, content: bytes) -> None:
    """Make a file whole or not at all, durable with its name; replaces what has the name.

    Raises:
        OSError: what failed; the old file, if any, is as it was.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        disk.remove(temporary)
        descriptor = disk.open(temporary, create=True)
        try:
            disk.write(descriptor, content, 0)
            disk.sync(descriptor)
        finally:
            disk.close(descriptor)
        disk.rename(temporary, path)
        disk.sync_directory(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            disk.remove(temporary)
        raise


def page_aligned(n_bytes: int) -> memoryview:
    """Fresh memory that begins at a page, zero."""
    return memoryview(mmap.mmap(-1, max(n_bytes, 1)))[:n_bytes]


def _cache(descriptor: int, n_bytes: int) -> None:
    """Have the page cache read a file in large folios, as Linux does for huge pages alone, and wait for one.

    By C's names, as Python's mmap lets no other thread run meanwhile. What fails is read the usual way.
    """
    if _libc is None:
        return
    address = _libc.mmap(None, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address != _MAP_FAILED:
        _libc.madvise(address, n_bytes, mmap.MADV_HUGEPAGE)
        _libc.madvise(address, _PAGE_BYTES, _MADV_POPULATE_READ)  # a look at it would be a signal if it fails
        _libc.munmap(address, n_bytes)


def _address(view: memoryview) -> int:
    """Where it is in memory; 1 for memory that may not be written, such as bytes, as nobody says."""
    return 1 if view.readonly else ctypes.addressof(ctypes.c_char.from_buffer(view))


def _direct(descriptor: int, on: bool) -> bool:
    """Let writes go past the page cache, or not; whether the file system does it."""
    flag = getattr(os, "O_DIRECT", 0)
    if not flag:
        return False
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | flag if on else flags & ~flag)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def naming(path: Path, doing: str, kind: type[PydecError] = LedgerError) -> Iterator[None]:
    """Turn an OSError inside into an error that names the file and what could not be done."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = f"the disk is full ({error.strerror}); what was there before is kept; free some space"
        else:
            reason = error.strerror or str(error)
        raise kind(f"{path} cannot be {doing}: {reason}") from error
