"""One process per key: a lock that the system releases when its holder ends, however it ends.

The file also counts the starts. Peers are told this incarnation number, so that a message of an
earlier life is recognised. The lock is advisory and guards one directory: two machines with a copy of one key
are caught by their contradicting votes instead, and slashed.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydec.disk import DISK, Disk, OpenFile, naming
from pydec.errors import LedgerError

_MOST_BYTES = 128


class KeyLock(OpenFile):
    """The right to vote with a key from this directory; also a context manager.

    Args:
        directory: where the ledger is; ``KEY.lock`` is made in it.
        key: public key, 32 bytes.
        disk: the file system.

    Attributes:
        starts: how often ``begin`` was called with this file before.

    Raises:
        LedgerError: another process holds it (its number is named), or the file cannot be written.
    """

    def __init__(self, directory: Path, key: bytes, disk: Disk = DISK) -> None:
        self.path = directory / f"{key.hex()[:16]}.lock"
        self._disk = disk
        with naming(self.path, "opened"):
            new = not disk.exists(self.path)
            try:
                self._file = disk.open(self.path, create=new)
            except FileExistsError:
                self._file = disk.open(self.path)
            if new:
                disk.sync_directory(directory)
        try:
            self._take()
        except BaseException:
            disk.close(self._file)
            raise

    def begin(self) -> int:
        """Count this start.

        Returns:
            The incarnation number, from 1; it is on the disk before anything can be sent with it.
        """
        self.starts += 1
        with naming(self.path, "written"):
            content = f"{self.starts} {os.getpid()}\n".encode().ljust(_MOST_BYTES)
            self._disk.write(self._file, content, 0)
            self._disk.sync(self._file)
        return self.starts

    def release(self) -> None:
        """Let the next process have it; idempotent. The file stays, with its count."""
        self.close()

    def _take(self) -> None:
        with naming(self.path, "locked"):
            try:
                self._disk.lock(self._file)
            except BlockingIOError:
                words = self._disk.read(self._file, _MOST_BYTES, 0).split()
                holder = words[1].decode("ascii", "replace") if len(words) == 2 else "unknown"
                raise LedgerError(
                    f"{self.path} is held by process {holder}: one process per key, or its votes contradict "
                    "each other and its stake is lost; stop that process first"
                ) from None
            words = self._disk.read(self._file, _MOST_BYTES, 0).split()
            if words and not (len(words) == 2 and words[0].isdigit()):
                raise LedgerError(
                    f"{self.path} is damaged: it must hold a count and a process number; write the number of "
                    "starts of this node, or more, into it"
                )
            self.starts = int(words[0]) if words else 0
