"""One node's ledger directory: genesis, decided blocks, the safety record of its key, and the key's lock.

    DIR/genesis            canonical bytes; their hash is the chain id
    DIR/blocks             decided blocks with their certificates, see ``ledger_file``
    DIR/KEY.safety         what KEY has signed at the current height, see ``safety_file``
    DIR/KEY.lock           held by the process that votes with KEY, see ``key_lock``

KEY stands for the first 16 hexadecimal digits of the public key that votes.
"""

from __future__ import annotations

from pathlib import Path

from pydec.consensus.disk import DISK, Closing, Disk, create_whole, naming
from pydec.consensus.genesis import Genesis
from pydec.consensus.key_lock import KeyLock
from pydec.consensus.ledger_file import LedgerFile
from pydec.consensus.safety_file import SafetyFile, Standing
from pydec.consensus.storage import Restored
from pydec.errors import FrameError, LedgerError

GENESIS, BLOCKS = "genesis", "blocks"
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


def read_blocks(directory: Path, genesis: Genesis, disk: Disk = DISK) -> LedgerFile:
    """The decided blocks, for reading while another process may be appending.

    Raises:
        LedgerError: there are none, or the file is damaged.
    """
    return LedgerFile(directory / BLOCKS, genesis.chain_id, write=False, disk=disk)


class FileStorage(Closing):
    """``Storage`` on disk for the one process that votes with a key; also a context manager.

    Args:
        directory: made by ``create``.
        key: public key that votes, 32 bytes.
        disk: the file system.

    Attributes:
        genesis: of the chain.
        incarnation: number of this start, for the greeting of peers.

    Raises:
        LedgerError: another process has the key, or a file is damaged or of another chain or key.
    """

    def __init__(self, directory: Path, key: bytes, disk: Disk = DISK) -> None:
        self.genesis = read_genesis(directory, disk)
        self._lock = KeyLock(directory, key, disk)
        try:
            self._blocks = LedgerFile(directory / BLOCKS, self.genesis.chain_id, disk=disk)
            try:
                safety = directory / f"{key.hex()[:16]}.safety"
                began = self._lock.starts > 0 or self._blocks.head is not None
                self._safety = SafetyFile(safety, key, disk, lost=began and not disk.exists(safety))
                self.incarnation = self._lock.begin()
            except BaseException:
                self._blocks.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def load(self) -> Restored:
        """The safety record.

        It is not sound if it is damaged, or was not there although this directory is not new. A new directory
        for a key that voted elsewhere cannot be told from here: a node must ask its peers whether they know
        it.
        """
        return Restored(self._safety.record, self._safety.standing is not Standing.DAMAGED)

    def persist(self, record: bytes) -> None:
        """Replace the safety record."""
        self._safety.persist(record)

    def append(self, height: int, record: bytes) -> None:
        """Add the decision of the next height."""
        if self._blocks.head is None and height != 1:
            raise ValueError(f"the ledger is empty, so height {height} cannot follow")
        self._blocks.append(height, record)

    def record(self, height: int) -> bytes | None:
        """The decision of a height, None if it is not here."""
        try:
            return self._blocks.read(height)
        except KeyError:
            return None

    @property
    def head(self) -> int:
        """The last height, 0 if there is none."""
        return self._blocks.head or 0

    def close(self) -> None:
        """Close the files and let the next process have the key; idempotent."""
        self._safety.close()
        self._blocks.close()
        self._lock.release()
