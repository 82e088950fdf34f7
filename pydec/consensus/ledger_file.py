"""The chain on disk: one record for each height, only ever appended.

A record is magic, length, height, CRC-32 and the payload; a salt in the file's header goes into every CRC, so
nobody can hide what looks like a record inside a transaction. ``append`` returns after the sync. What a crash
in the middle of an append leaves is at most one incomplete record at the end, which the next start cuts off;
anything else that does not fit is damage, and is refused with file and offset, because cutting there would
forget blocks that this node helped to decide.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from pydec.disk import DISK, Disk, OpenFile, create_whole, naming
from pydec.errors import LedgerError

MAX_RECORD_BYTES = 4 << 20  # a block of at most 1 MiB, its certificates, and room
_MAGIC = b"pydec.ledger.v1\0"
_HEADER = struct.Struct(">16s32s16sI")  # magic, chain id, salt, CRC of these
_RECORD = struct.Struct(">4sIQI")  # magic, length, height, CRC of these two and the payload
_RECORD_MAGIC = b"\xb1pdr"
_SCAN_BYTES = 1 << 20


class LedgerFile(OpenFile):
    """Payloads by height, in one file; also a context manager. One writing process: hold a ``KeyLock``.

    Args:
        path: the file.
        chain_id: 32 bytes; a new file gets them, an old one must have them.
        write: False reads only: the file must exist, and a torn tail is left as it is.
        disk: the file system.

    Attributes:
        torn_bytes: length of the incomplete record found at the end, cut off if writing.

    Raises:
        LedgerError: damaged, of another chain, or not to be opened.
    """

    def __init__(self, path: Path, chain_id: bytes, *, write: bool = True, disk: Disk = DISK) -> None:
        if len(chain_id) != 32:
            raise ValueError(f"a chain id has 32 bytes, got {len(chain_id)}")
        self._path, self._disk, self._write = path, disk, write
        self._offsets = array("Q")
        self._first = 0
        self._failed = False
        self.torn_bytes = 0
        with naming(path, "opened"):
            if write and not disk.exists(path):
                head = _MAGIC + chain_id + os.urandom(16)
                create_whole(disk, path, head + crc32(head).to_bytes(4, "big"))
            self._file = disk.open(path, write=write)
        try:
            self._check_header(chain_id)
            self.refresh()
            if write and self.torn_bytes:
                with naming(path, "cut"):
                    disk.truncate(self._file, self._end)
                    disk.sync(self._file)
        except BaseException:
            disk.close(self._file)
            raise

    @property
    def first(self) -> int | None:
        """Height of the first record, None if there is none."""
        return self._first if self._offsets else None

    @property
    def head(self) -> int | None:
        """Height of the last record, None if there is none."""
        return self._first + len(self._offsets) - 1 if self._offsets else None

    def append(self, height: int, payload: bytes) -> None:
        """Add one record; it is on the disk when this returns.

        Args:
            height: one more than ``head``; any for the first record.
            payload: at most ``MAX_RECORD_BYTES``.

        Raises:
            ValueError: another height, or too long a payload.
            LedgerError: the disk refused; the records before are as they were. After a failed write it can
                be tried again; after a failed sync the file takes no more.
        """
        if not self._write or self._failed:
            why = "failed before" if self._failed else "was opened for reading"
            raise LedgerError(f"{self._path} {why} and takes no more records; open it again on a sound disk")
        if self._offsets and height != self._first + len(self._offsets):
            raise ValueError(f"{self._path} ends at height {self.head}, so height {height} cannot follow")
        if len(payload) > MAX_RECORD_BYTES:
            raise ValueError(f"a record has at most {MAX_RECORD_BYTES} bytes, got {len(payload)}")
        head = _RECORD.pack(_RECORD_MAGIC, len(payload), height, self._crc(height, payload))
        with naming(self._path, "written"):
            try:
                self._disk.write(self._file, head + payload, self._end)
            except OSError:
                self._failed = True
                self._disk.truncate(self._file, self._end)
                self._failed = False
                raise
            try:
                self._disk.sync(self._file)
            except OSError:
                self._failed = True
                raise
        self._add(height, self._end, len(payload))

    def cut(self, height: int) -> None:
        """Forget the records above a height; durable when this returns.

        Raises:
            LedgerError: the disk refused.
        """
        if self.head is None or self.head <= height:
            return
        at = max(0, height + 1 - self._first)
        with naming(self._path, "cut"):
            self._disk.truncate(self._file, self._offsets[at])
            self._disk.sync(self._file)
        self._end = self._offsets[at]
        del self._offsets[at:]

    def read(self, height: int) -> bytes:
        """The payload of a height.

        Raises:
            KeyError: the file does not have it.
            LedgerError: it is damaged by now.
        """
        if not self._offsets or not 0 <= height - self._first < len(self._offsets):
            raise KeyError(height)
        at = self._offsets[height - self._first]
        with naming(self._path, "read"):
            _, length, _, crc = _RECORD.unpack(self._disk.read(self._file, _RECORD.size, at))
            payload = self._disk.read(self._file, min(length, MAX_RECORD_BYTES), at + _RECORD.size)
        if crc != self._crc(height, payload):
            raise self._damage(at, f"the record of height {height} fails its CRC")
        return payload

    def records(self, first: int = 0) -> Iterator[tuple[int, bytes]]:
        """Height and payload of every record from height ``first`` on."""
        for height in range(max(first, self._first), self._first + len(self._offsets)):
            yield height, self.read(height)

    def offset(self, height: int) -> int:
        """Where the record of a height starts in the file, bytes."""
        return self._offsets[height - self._first]

    def refresh(self) -> int:
        """Look for records that another process appended; the number found.

        Raises:
            LedgerError: damaged.
        """
        before = len(self._offsets)
        with naming(self._path, "read"):
            size = self._disk.size(self._file)
            window, start = b"", self._end  # bytes of the file from start on
            while self._end < size:
                record = self._parse(window, self._end - start)
                if record is None and start + len(window) < size and (start < self._end or not window):
                    window, start = self._window(size), self._end
                    continue
                if record is None:
                    self._judge_tail(window[self._end - start :], size)
                    break
                height, length = record
                if self._offsets and height != self._first + len(self._offsets):
                    raise self._damage(self._end, f"height {height} follows height {self.head}")
                self._add(height, self._end, length)
            else:
                self.torn_bytes = 0
        return len(self._offsets) - before

    def _add(self, height: int, offset: int, length: int) -> None:
        if not self._offsets:
            self._first = height
        self._offsets.append(offset)
        self._end = offset + _RECORD.size + length

    def _check_header(self, chain_id: bytes) -> None:
        with naming(self._path, "read"):
            data = self._disk.read(self._file, _HEADER.size, 0)
        if len(data) < _HEADER.size or data[:16] != _MAGIC or _HEADER.unpack(data)[3] != crc32(data[:-4]):
            raise LedgerError(f"{self._path} is no ledger of pydec, or is damaged at offset 0")
        if data[16:48] != chain_id:
            raise LedgerError(
                f"{self._path} is the ledger of chain {data[16:48].hex()[:16]}, not of {chain_id.hex()[:16]}"
            )
        self._salt = crc32(data[48:64])
        self._end = _HEADER.size

    def _window(self, size: int) -> bytes:
        """Bytes from the end of what is known: whole records, and one of any length that follows them."""
        n_bytes = min(size - self._end, _SCAN_BYTES + _RECORD.size + MAX_RECORD_BYTES)
        return self._disk.read(self._file, n_bytes, self._end)

    def _judge_tail(self, rest: bytes, size: int) -> None:
        """Bytes that are no record: the torn end of one append, or damage."""
        if size - self._end > _RECORD.size + MAX_RECORD_BYTES:
            raise self._damage(self._end, "no record starts there, and one append cannot leave that much")
        at = rest.find(_RECORD_MAGIC, 1)
        while at >= 0:
            if self._parse(rest, at) is not None:
                raise self._damage(self._end, f"no record starts there, but one does at {self._end + at}")
            at = rest.find(_RECORD_MAGIC, at + 1)
        self.torn_bytes = size - self._end

    def _damage(self, offset: int, reason: str) -> LedgerError:
        return LedgerError(
            f"{self._path} is damaged at offset {offset}: {reason}; get the blocks again from the "
            "other nodes into a new directory, and keep this one"
        )

    def _parse(self, data: bytes, at: int) -> tuple[int, int] | None:
        """Height and length of the record at ``at``; None if no whole one is there."""
        if len(data) - at < _RECORD.size:
            return None
        magic, length, height, crc = _RECORD.unpack_from(data, at)
        start = at + _RECORD.size
        if magic != _RECORD_MAGIC or length > MAX_RECORD_BYTES or len(data) - start < length:
            return None
        payload = memoryview(data)[start : start + length]
        return (height, length) if crc == self._crc(height, payload) else None

    def _crc(self, height: int, payload: bytes | memoryview) -> int:
        head = height.to_bytes(8, "big") + len(payload).to_bytes(4, "big")
        return crc32(payload, crc32(head, self._salt))
