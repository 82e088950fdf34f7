"""One node's ledger directory: genesis, decided blocks, the safety record of its key, and the key's lock.

    DIR/genesis            canonical bytes; their hash is the chain id
    DIR/blocks             decided blocks with their certificates, see ``ledger_file``
    DIR/epochs             the step that began each epoch, for newcomers, see ``light``
    DIR/snapshot           block and state that the ledger begins at, if this node joined by a snapshot
    DIR/blocks-HEIGHT      the blocks after the snapshot of that height; ``blocks`` stays as it was
    DIR/KEY.safety         what KEY has signed at the current height, see ``safety_file``
    DIR/KEY.lock           held by the process that votes with KEY, see ``key_lock``

KEY stands for the first 16 hexadecimal digits of the public key that votes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from pydec.consensus.genesis import Genesis
from pydec.consensus.key_lock import KeyLock
from pydec.consensus.ledger_file import LedgerFile
from pydec.consensus.light import MOST_STEP_BYTES
from pydec.consensus.safety_file import SafetyFile, Standing
from pydec.consensus.state.snapshot import MAX_SNAPSHOT_BYTES
from pydec.consensus.storage import Restored
from pydec.disk import DISK, Closing, Disk, create_whole, naming
from pydec.errors import FrameError, LedgerError

GENESIS, BLOCKS, EPOCHS, SNAPSHOT = "genesis", "blocks", "epochs", "snapshot"
KEY_FILE = "key.json"  # of the node's identity, where whoever starts it keeps it beside the rest
_SNAPSHOT = struct.Struct(">16s32sQI")  # magic, chain id, height, CRC of these and of what follows
_SNAPSHOT_MAGIC = b"pydec.snapshot.1"
_MOST_SNAPSHOT_BYTES = MAX_SNAPSHOT_BYTES + MOST_STEP_BYTES
_MOST_GENESIS_BYTES = 1 << 26


def create(directory: Path, genesis: Genesis, disk: Disk = DISK) -> None:
    """Make a ledger directory that holds the genesis alone; its parent must exist.

    Raises:
        LedgerError: it holds another chain's genesis, or cannot be written. The same genesis may be there.
    """
    with naming(directory, "made"):
        disk.make_directory(directory)
    path = directory / GENESIS
    if disk.exists(path):
        found = read_genesis(directory, disk)
        if found.chain_id != genesis.chain_id:
            raise LedgerError(
                f"{directory} is the ledger of chain {found.chain_id.hex()[:16]} ({found.name}), not of "
                f"{genesis.chain_id.hex()[:16]}; choose another directory"
            )
        return
    with naming(path, "written"):
        create_whole(disk, path, genesis.encode())


def read_genesis(directory: Path, disk: Disk = DISK) -> Genesis:
    """The genesis of a ledger directory.

    Raises:
        LedgerError: there is none, or it is damaged.
    """
    path = directory / GENESIS
    with naming(path, "read"):
        descriptor = disk.open(path, write=False)
        try:
            data = disk.read(descriptor, _MOST_GENESIS_BYTES, 0)
        finally:
            disk.close(descriptor)
    try:
        return Genesis.decode(data)
    except FrameError as error:
        raise LedgerError(f"{path} is damaged: {error}") from None


def read_blocks(directory: Path, genesis: Genesis, disk: Disk = DISK, base: Base | None = None) -> LedgerFile:
    """The decided blocks, for reading while another process may be appending.

    Args:
        directory: of the ledger.
        genesis: of its chain.
        disk: the file system.
        base: where they begin; None looks.

    Raises:
        LedgerError: there are none, or the file is damaged.
    """
    base = base or read_snapshot(directory, genesis.chain_id, disk)
    return LedgerFile(blocks_path(directory, base), genesis.chain_id, write=False, disk=disk)


def read_steps(directory: Path, genesis: Genesis, disk: Disk = DISK) -> Iterator[bytes]:
    """The epoch steps that are stored, encoded, the oldest first.

    Raises:
        LedgerError: the file is damaged, or there is none.
    """
    with LedgerFile(directory / EPOCHS, genesis.chain_id, write=False, disk=disk) as steps:
        for _, step in steps.records():
            yield step


@dataclass(frozen=True)
class Base:
    """Where a ledger begins.

    Args:
        height: of the snapshot, 0 for the genesis.
        record: what ``effects.Install`` wrote, empty for the genesis.
    """

    height: int = 0
    record: bytes = b""


def blocks_path(directory: Path, base: Base) -> Path:
    """The file of the blocks after a base."""
    return directory / (f"{BLOCKS}-{base.height}" if base.height else BLOCKS)


def read_snapshot(directory: Path, chain_id: bytes, disk: Disk = DISK) -> Base:
    """Where the ledger in a directory begins. Nothing is verified but that the file is whole.

    Raises:
        LedgerError: the file is damaged, or of another chain.
    """
    path = directory / SNAPSHOT
    if not disk.exists(path):
        return Base()
    with naming(path, "read"):
        descriptor = disk.open(path, write=False)
        try:
            data = disk.read(descriptor, _SNAPSHOT.size + _MOST_SNAPSHOT_BYTES, 0)
        finally:
            disk.close(descriptor)
    if len(data) >= _SNAPSHOT.size:
        magic, chain, height, crc = _SNAPSHOT.unpack_from(data)
        record = data[_SNAPSHOT.size :]
        if magic == _SNAPSHOT_MAGIC and chain == chain_id and height and crc == _crc(chain, height, record):
            return Base(height, record)
    raise LedgerError(
        f"{path} is damaged, or not of chain {chain_id.hex()[:16]}: get the ledger again from the other "
        "nodes into a new directory, and keep this one"
    )


def _crc(chain_id: bytes, height: int, record: bytes) -> int:
    return crc32(record, crc32(_SNAPSHOT.pack(_SNAPSHOT_MAGIC, chain_id, height, 0)))


class FileStorage(Closing):
    """``Storage`` on disk for the one process that votes with a key; also a context manager.

    Args:
        directory: made by ``create``.
        key: public key that votes, 32 bytes.
        disk: the file system.

    Attributes:
        genesis: of the chain.
        base: where the ledger begins.
        incarnation: number of this start, for the greeting of peers.

    Raises:
        LedgerError: another process has the key, or a file is damaged or of another chain or key.
    """

    def __init__(self, directory: Path, key: bytes, disk: Disk = DISK) -> None:
        self.genesis = read_genesis(directory, disk)
        self._lock = KeyLock(directory, key, disk)
        try:
            chain_id = self.genesis.chain_id
            self.base = read_snapshot(directory, chain_id, disk)
            self._directory, self._disk = directory, disk
            self._steps = LedgerFile(directory / EPOCHS, chain_id, disk=disk)
            try:
                self._blocks = LedgerFile(blocks_path(directory, self.base), chain_id, disk=disk)
                try:
                    safety = directory / f"{key.hex()[:16]}.safety"
                    began = self._lock.starts > 0 or self.head > 0
                    self._safety = SafetyFile(safety, key, disk, lost=began and not disk.exists(safety))
                    self.incarnation = self._lock.begin()
                except BaseException:
                    self._blocks.close()
                    raise
            except BaseException:
                self._steps.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def load(self) -> Restored:
        """The safety record.

        It is not sound if it is damaged, or was not there although this directory is not new. A new directory
        for a key that voted elsewhere cannot be told from here: the replica tells it by the key's COMMITs in
        the chain, or by a snapshot that it joins by.
        """
        return Restored(self._safety.record, self._safety.standing is not Standing.DAMAGED)

    def persist(self, record: bytes) -> None:
        """Replace the safety record."""
        self._safety.persist(record)

    def append(self, height: int, record: bytes) -> None:
        """Add the decision of the next height."""
        if self._blocks.head is None and height != self.base.height + 1:
            raise ValueError(
                f"the ledger ends at height {self.base.height}, so height {height} cannot follow"
            )
        self._blocks.append(height, record)

    def append_step(self, epoch: int, step: bytes) -> None:
        """Add the step that began the next epoch."""
        if epoch != self.epochs + 1:
            raise ValueError(f"the last step began epoch {self.epochs}, so epoch {epoch} cannot follow")
        self._steps.append(epoch, step)

    def keep_steps(self, steps: Sequence[bytes], last: int) -> None:
        """After a restart: have the steps of all epochs up to the ledger's, and no other.

        What a crash in the middle of ``install`` has left is cut off; what one between a block and its step
        has left out is added.

        Args:
            steps: of the last ``len(steps)`` epochs, encoded.
            last: the epoch of the ledger's end.
        """
        self._steps.cut(last)
        for epoch in range(self.epochs + 1, last + 1):
            self.append_step(epoch, steps[epoch - last - 1])

    def install(self, height: int, record: bytes, steps: Iterable[tuple[int, bytes]]) -> None:
        """Let the ledger begin at a snapshot: the file's new name is what makes it the new one.

        Until then the old ledger is there as it was; the steps ahead of it are cut off by the next start. Its
        blocks stay in their file, which nobody reads any more.

        Args:
            height: of the snapshot.
            record: see ``effects.Install``.
            steps: by epoch, from this ledger's to the snapshot's.
        """
        chain_id = self.genesis.chain_id
        for epoch, step in steps:
            if epoch > self.epochs:
                self.append_step(epoch, step)
        base = Base(height, record)
        blocks = LedgerFile(blocks_path(self._directory, base), chain_id, disk=self._disk)
        try:
            path, crc = self._directory / SNAPSHOT, _crc(chain_id, height, record)
            with naming(path, "written"):
                head = _SNAPSHOT.pack(_SNAPSHOT_MAGIC, chain_id, height, crc)
                create_whole(self._disk, path, head + record)
        except BaseException:
            blocks.close()
            raise
        self._blocks.close()
        self._blocks, self.base = blocks, base

    def record(self, height: int) -> bytes | None:
        """The decision of a height, None if it is not here."""
        try:
            return self._blocks.read(height)
        except KeyError:
            return None

    def step(self, epoch: int) -> bytes | None:
        """The step that began an epoch, None if it is not here."""
        try:
            return self._steps.read(epoch)
        except KeyError:
            return None

    @property
    def head(self) -> int:
        """The last height, 0 if there is none."""
        return self._blocks.head or self.base.height

    @property
    def epochs(self) -> int:
        """The last epoch whose step is here, 0 if there is none."""
        return self._steps.head or 0

    def close(self) -> None:
        """Close the files and let the next process have the key; idempotent."""
        self._safety.close()
        self._blocks.close()
        self._steps.close()
        self._lock.release()
