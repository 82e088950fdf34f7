"""What an add that was interrupted has on the disk: ``DIR/adding/NAME``.

A head says what is being added and how; then comes one record with a checksum for each shard that is whole.
"""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

from pydec.disk import create_whole, naming
from pydec.errors import ChunkError, FrameError, StoreError
from pydec.store.manifest import SHARD_RECORD_BYTES, Shard, pack_shard, unpack_shard
from pydec.store.shard import Index
from pydec.store.store import Store

_RECORD_BYTES = SHARD_RECORD_BYTES + 4
_MOST_JOURNAL_BYTES = 1 << 30
_MAGIC = b"pydec.adding.1"


class Journal:
    """The shards of an add that are on the disk.

    Args:
        store: whose lock the caller holds.
        name: of the data set.
        identity: what is being added and how; shards of another are forgotten.

    Attributes:
        shards: as found, then as noted.
    """

    def __init__(self, store: Store, name: str, identity: bytes) -> None:
        self._disk, self.path = store.disk, store.directory / "adding" / name
        head = _MAGIC + identity
        found = _read(store, self.path)
        self.shards: list[Shard] = _whole(found[len(head) :]) if found.startswith(head) else []
        if not self.shards:
            with naming(self.path, "written", StoreError):
                create_whole(self._disk, self.path, head)
        self._head_bytes = len(head)
        self._drop_lost(store)
        if found.startswith(head) and len(found) != self._end:
            self._cut()

    def note(self, shard: Shard) -> None:
        """One more shard; it is noted once this returns.

        Raises:
            StoreError: the disk is full or fails.
        """
        record = pack_shard(shard)
        with naming(self.path, "written", StoreError):
            file = self._disk.open(self.path)
            try:
                self._disk.write(file, record + crc32(record).to_bytes(4, "big"), self._end)
                self._disk.sync(file)
            finally:
                self._disk.close(file)
        self.shards.append(shard)

    def end(self) -> None:
        """Forget it."""
        with naming(self.path, "removed", StoreError):
            self._disk.remove(self.path)

    def _drop_lost(self, store: Store) -> None:
        """Forget shards from the first on whose objects are not all here."""
        for number, shard in enumerate(self.shards):
            try:
                names = Index.decode(store.objects.get(shard.index)).objects
            except (ChunkError, FrameError):
                names = [shard.index]
            if not all(map(store.objects.has, names)):
                del self.shards[number:]
                return

    @property
    def _end(self) -> int:
        return self._head_bytes + len(self.shards) * _RECORD_BYTES

    def _cut(self) -> None:
        """Remove what follows the last whole record: what is noted next must be the last."""
        with naming(self.path, "cut", StoreError):
            file = self._disk.open(self.path)
            try:
                self._disk.truncate(file, self._end)
                self._disk.sync(file)
            finally:
                self._disk.close(file)


def unfinished(store: Store) -> dict[str, list[Shard]]:
    """Adds that were interrupted, by name, with the shards that are on the disk."""
    found = {}
    for name in store.disk.names(store.directory / "adding"):
        if not name.startswith("."):
            data = _read(store, store.directory / "adding" / name)
            found[name] = _whole(data[len(_MAGIC) + 32 :])
    return found


def forget(store: Store, name: str) -> None:
    """Give up an add that was interrupted; ``Store.collect`` then frees its objects.

    Raises:
        StoreError: the disk does not let it.
    """
    path = store.directory / "adding" / name
    with naming(path, "removed", StoreError):
        store.disk.remove(path)


def _read(store: Store, path: Path) -> bytes:
    with naming(path, "read", StoreError):
        try:
            return store.disk.read_whole(path, _MOST_JOURNAL_BYTES)
        except FileNotFoundError:
            return b""


def _whole(records: bytes) -> list[Shard]:
    """The shards noted, up to the first record that did not reach the disk whole."""
    found = []
    for at in range(0, len(records) - _RECORD_BYTES + 1, _RECORD_BYTES):
        record, crc = (
            records[at : at + SHARD_RECORD_BYTES],
            records[at + SHARD_RECORD_BYTES : at + _RECORD_BYTES],
        )
        if crc32(record).to_bytes(4, "big") != crc:
            break
        try:
            found.append(unpack_shard(record))
        except FrameError:
            break
    return found
