"""The safety record on disk: what this key has signed at the current height, never lost and never older.

Two slots of 512-byte sectors; a record goes to the slot that does not hold the newest one, and ``persist``
returns after the sync, so the newest record that was ever acted on is whole whatever happens to a write.

Every sector has its own CRC and the record's sequence number, because two accidents must be told apart. A
write that a crash tore leaves old and new sectors, each valid: nothing was sent, the other slot is the truth.
A sector that fails its CRC is damage: the slot may have held the newest record, so the other one may be
stale, and a vote that relies on it might contradict one that was sent. Such a node must not vote before the
others have moved on (specification, rule 15). Disks write sectors whole; a sector torn in itself counts as
damage, the safe side.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from pydec.disk import DISK, Disk, OpenFile, create_whole, naming
from pydec.errors import LedgerError

SECTOR_BYTES = 512
_MAGIC = b"pydec.safety.v1\0"
_HEADER = struct.Struct(
    ">16s32sIII"
)  # magic, key, sectors in a slot, 1 if a record was lost, CRC of all that
_SECTOR = struct.Struct(">QHHI")  # sequence, slot, index modulo 2^16, CRC of the three and the content
_FIRST = struct.Struct(">QI")  # in sector 0: sequence of the record before, length of this one
_PAYLOAD = SECTOR_BYTES - _SECTOR.size
_SECTORS = 128  # of a new file's slots: 62 KiB of record; larger records make the file grow
_MOST_SECTORS = 1 << 18
_ZERO = bytes(SECTOR_BYTES)


class Standing(enum.Enum):
    """What the file says about this key's past."""

    FRESH = "fresh"
    """No record was ever persisted here. If the chain knows the key, its record is elsewhere or lost."""

    SOUND = "sound"
    """The newest record that any sent message can depend on."""

    DAMAGED = "damaged"
    """A newer record may have been here; votes may not rely on what is left."""


@dataclass(frozen=True)
class _Slot:
    """One slot as it was read: whole with its record, torn without, blank with sequence 0, or damaged."""

    sequence: int = 0
    before: int = 0
    record: bytes | None = None
    damaged: bool = False


def _judge(slots: tuple[_Slot, _Slot]) -> tuple[Standing, int | None]:
    """Standing and the index of the newest whole slot, if one is."""
    whole = [index for index in (0, 1) if slots[index].record is not None]
    newest = max(whole, key=lambda index: slots[index].sequence, default=None)
    if any(slot.damaged for slot in slots):
        return Standing.DAMAGED, newest
    if newest is None:
        # A first write that was torn leaves the other slot blank; two torn ones never come from a crash.
        blank = any(slot.sequence == 0 for slot in slots)
        return (Standing.FRESH if blank else Standing.DAMAGED), None
    kept, other = slots[newest], slots[1 - newest]
    if other.record is None and other.sequence:
        sound = other.sequence > kept.sequence  # torn while it was to become the newest
    else:
        sound = other.sequence == kept.before
    return (Standing.SOUND if sound else Standing.DAMAGED), newest


class SafetyFile(OpenFile):
    """One key's safety record; also a context manager. One process at a time: hold a ``KeyLock``.

    Args:
        path: the file; made, with its two slots written in full, if it is not there.
        key: public key whose votes it covers, 32 bytes.
        disk: the file system.
        lost: True if the file should be there and is not: the new one is DAMAGED until its first record.

    Attributes:
        standing: what was found; whoever gets anything but SOUND decides with the chain's help.
        record: the newest whole record, None if there is none.

    Raises:
        LedgerError: it cannot be read or made, or is another key's.
    """

    def __init__(self, path: Path, key: bytes, disk: Disk = DISK, lost: bool = False) -> None:
        if len(key) != 32:
            raise ValueError(f"a public key has 32 bytes, got {len(key)}")
        self._path, self._key, self._disk = path, key, disk
        self._failed = False
        self._sectors = self._sequence = self._newest = self._spare = 0
        self.standing = Standing.FRESH
        self.record: bytes | None = None
        with naming(path, "opened"):
            if not disk.exists(path):
                create_whole(disk, path, self._blank(_SECTORS, lost))
            self._file = disk.open(path)
        try:
            with naming(path, "read"):
                self._load()
        except BaseException:
            disk.close(self._file)
            raise

    def persist(self, record: bytes) -> None:
        """Write a record; it is on the disk when this returns.

        Raises:
            LedgerError: the disk refused; the record before is still there, and nothing may be sent. After a
                failed write it can be tried again; after a failed sync the file takes no more records.
        """
        if self._failed:
            raise LedgerError(
                f"{self._path} failed before and takes no more records; restart on a sound disk"
            )
        needed = _sectors_for(len(record))
        self._sequence += 1  # also after a failure: sectors of two tries must not pass as one record
        with naming(self._path, "written"):
            if needed > self._sectors or self.standing is Standing.DAMAGED:
                self._replace(needed, record)
            else:
                data = _sectors(self._spare, self._sequence, self._newest, record)
                self._disk.write(self._file, data, self._offset(self._spare))
                self._sync()
        self._newest, self._spare = self._sequence, 1 - self._spare
        self.record, self.standing = record, Standing.SOUND

    def _load(self) -> None:
        header = self._disk.read(self._file, SECTOR_BYTES, 0)
        try:
            magic, key, sectors, lost, crc = _HEADER.unpack_from(header)
        except struct.error:
            magic, key, sectors, lost, crc = b"", b"", 0, 0, 0
        if magic != _MAGIC or crc != crc32(header[: _HEADER.size - 4]) or not 0 < sectors <= _MOST_SECTORS:
            raise LedgerError(f"{self._path} is no safety record of pydec, or its first sector is damaged")
        if key != self._key:
            raise LedgerError(
                f"{self._path} is the safety record of key {key.hex()[:16]}, not of {self._key.hex()[:16]}"
            )
        self._sectors = sectors
        slots = (self._slot(0), self._slot(1))
        self.standing, newest = _judge(slots)
        if lost:
            self.standing = Standing.DAMAGED
        self._sequence = max(slot.sequence for slot in slots)
        self._spare = 0 if newest is None else 1 - newest
        self._newest = 0 if newest is None else slots[newest].sequence
        self.record = None if newest is None else slots[newest].record

    def _slot(self, slot: int) -> _Slot:
        data = self._disk.read(self._file, self._sectors * SECTOR_BYTES, self._offset(slot))
        if len(data) != self._sectors * SECTOR_BYTES:
            return _Slot(damaged=True)
        first = _sector(data, slot, 0)
        if first is None:
            return _Slot(damaged=True)
        sequence, payload = first
        before, length = _FIRST.unpack_from(payload) if sequence else (0, 0)
        needed = _sectors_for(length)
        if needed > self._sectors:
            return _Slot(damaged=True)
        payloads, sequences = [payload], {sequence}
        for index in range(1, self._sectors):
            found = _sector(data, slot, index)
            if found is None:
                return _Slot(max(sequences), damaged=True)
            if index < needed or found[0] > sequence:  # behind the record only older ones are left
                sequences.add(found[0])
                payloads.append(found[1])
        if len(sequences) > 1:
            return _Slot(max(sequences))
        record = b"".join(payloads)[_FIRST.size : _FIRST.size + length] if sequence else None
        return _Slot(sequence, before, record)

    def _offset(self, slot: int) -> int:
        return SECTOR_BYTES * (1 + slot * self._sectors)

    def _blank(self, sectors: int, lost: bool = False) -> bytes:
        """The content of a new file: every sector is written once, so that later writes need no new space."""
        head = _HEADER.pack(_MAGIC, self._key, sectors, lost, 0)[:-4]
        header = head + crc32(head).to_bytes(4, "big")
        return header.ljust(SECTOR_BYTES, b"\0") + bytes(2 * sectors * SECTOR_BYTES)

    def _sync(self) -> None:
        try:
            self._disk.sync(self._file)
        except OSError:
            self._failed = True
            raise

    def _replace(self, needed: int, record: bytes) -> None:
        """Put a file that is large enough, with this record in its first slot, in this one's place."""
        sectors = max(self._sectors, _SECTORS)
        while sectors < needed:
            sectors *= 2
        if sectors > _MOST_SECTORS:
            most = _MOST_SECTORS * _PAYLOAD - _FIRST.size
            raise LedgerError(f"a safety record has at most {most} bytes, got {len(record)}")
        content = bytearray(self._blank(sectors))
        data = _sectors(0, self._sequence, 0, record)
        content[SECTOR_BYTES : SECTOR_BYTES + len(data)] = data
        create_whole(self._disk, self._path, bytes(content))
        self._disk.close(self._file)
        self._file = self._disk.open(self._path)
        self._sectors, self._spare = sectors, 0


def _sectors_for(length: int) -> int:
    """How many sectors hold a record of ``length`` bytes."""
    return -(-(_FIRST.size + length) // _PAYLOAD)


def _sectors(slot: int, sequence: int, before: int, record: bytes) -> bytes:
    content = _FIRST.pack(before, len(record)) + record
    out = bytearray()
    for index, at in enumerate(range(0, len(content), _PAYLOAD)):
        payload = content[at : at + _PAYLOAD].ljust(_PAYLOAD, b"\0")
        out += _SECTOR.pack(sequence, slot, index & 0xFFFF, _crc(sequence, slot, index, payload)) + payload
    return bytes(out)


def _sector(data: bytes, slot: int, index: int) -> tuple[int, bytes] | None:
    """Sequence and content of one sector; (0, ...) if never written, None if damaged."""
    sector = data[index * SECTOR_BYTES : (index + 1) * SECTOR_BYTES]
    if sector == _ZERO:
        return 0, sector[_SECTOR.size :]
    sequence, at_slot, at_index, crc = _SECTOR.unpack_from(sector)
    payload = sector[_SECTOR.size :]
    if (
        (at_slot, at_index) != (slot, index & 0xFFFF)
        or not sequence
        or crc != _crc(sequence, slot, index, payload)
    ):
        return None
    return sequence, payload


def _crc(sequence: int, slot: int, index: int, payload: bytes) -> int:
    return crc32(payload, crc32(_SECTOR.pack(sequence, slot, index & 0xFFFF, 0)))
