"""Add a data set: pack samples into chunks, chunks into shards, and go on where an interrupted add was.

Each shard that is whole on the disk is noted in ``DIR/adding/NAME``: a head that says what is being added
and how, then one record with a checksum for each shard. The same command goes on after the last of them, if
what is to be added is still the same by its fingerprint; else it begins anew. The data set is in the store
only with its manifest, which comes last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pydec.crypto.keyring import Lock
from pydec.crypto.signing import SigningKey
from pydec.crypto.vault import OVERHEAD_BYTES, DatasetKey
from pydec.disk import Buffer, create_whole, naming
from pydec.errors import ChunkError, ConfigError, FrameError, StoreError
from pydec.store import keys
from pydec.store.inputs.base import Input, Run, Sample, Stream
from pydec.store.manifest import (
    CHUNK_BYTES,
    LEAST_CHUNK_BYTES,
    SHARD_RECORD_BYTES,
    Field,
    Head,
    Manifest,
    Policy,
    Shard,
    check_name,
    pack_shard,
    unpack_shard,
)
from pydec.store.objects import MOST_BYTES
from pydec.store.shard import MOST_CHUNKS, MOST_LENGTHS, Index
from pydec.store.store import Store

SHARD_BYTES = 1 << 26
_RECORD_BYTES = SHARD_RECORD_BYTES + 4
_MOST_JOURNAL_BYTES = 1 << 30
_MAGIC = b"pydec.adding.1"


class Packer:
    """Makes shards of samples.

    Args:
        store: where their objects go.
        fields: of every sample.
        chunk_bytes: most bytes of a chunk.
        done: called with each shard, once it is on the disk.
        key: seals the chunks of a private data set.
        first_chunk: number of the first of them.
    """

    def __init__(
        self,
        store: Store,
        fields: tuple[Field, ...],
        chunk_bytes: int,
        done: Callable[[Shard], None],
        key: DatasetKey | None = None,
        first_chunk: int = 0,
    ) -> None:
        self._key, self._number = key, first_chunk
        self._objects, self._done, self._chunk_bytes = store.objects, done, chunk_bytes
        self._fixed = [field.n_bytes for field in fields]
        self._columns = self._fixed.count(0)
        self._buffer = bytearray()
        self._chunks: list[bytes] = []
        self._chunk_lengths: list[int] = []
        self._lengths: list[NDArray[np.int64]] = []
        self._samples = self._n_bytes = self._count = 0

    def add(self, sample: Sample) -> None:
        """One more sample.

        Raises:
            StoreError: the disk is full or fails, or the sample is too large for any index.
        """
        sizes = [_size(value) for value in sample.values]
        pieces = (p for v in sample.values for p in (v.pieces if isinstance(v, Stream) else (v,)))
        lengths = [size for size, fixed in zip(sizes, self._fixed, strict=True) if not fixed]
        self._add(sum(sizes), np.array([lengths], np.int64).reshape(1, self._columns), pieces)

    def add_run(self, run: Run) -> None:
        """Many small samples.

        Raises:
            StoreError: the disk is full or fails.
        """
        data, count = memoryview(run.data), len(run.sizes)
        starts = np.zeros(count + 1, np.int64)
        np.cumsum(run.sizes, out=starts[1:])
        first = 0
        while first < count:
            begin = int(starts[first])
            room = min(self._chunk_bytes - len(self._buffer), SHARD_BYTES - self._n_bytes)
            last = int(np.searchsorted(starts, begin + room, "right")) - 1
            if self._columns:
                last = min(last, first + -(-(MOST_LENGTHS - self._count) // self._columns))
            if last == first:
                last = first + 1
                end = int(starts[last])
                self._add(end - begin, run.lengths[first:last], [data[begin:end]])
            else:
                self._buffer += data[begin : int(starts[last])]
                self._note(last - first, int(starts[last]) - begin, run.lengths[first:last])
            first = last

    def _add(self, total: int, lengths: NDArray[np.int64], pieces: Iterable[Buffer]) -> None:
        if -(-total // self._chunk_bytes) > MOST_CHUNKS:
            raise StoreError(
                f"a sample of {total} bytes makes more than {MOST_CHUNKS} chunks of {self._chunk_bytes} "
                "bytes;"
                f"use --chunk-bytes {MOST_BYTES}, or cut it"
            )
        if self._samples and self._n_bytes + total > SHARD_BYTES:
            self.finish_shard()
        if len(self._buffer) + total > self._chunk_bytes:
            self._flush()
        for piece in pieces:
            self._append(piece)
        self._note(1, total, lengths)

    def _note(self, samples: int, n_bytes: int, lengths: NDArray[np.int64]) -> None:
        self._samples += samples
        self._n_bytes += n_bytes
        self._lengths.append(lengths)
        self._count += lengths.size
        if self._count >= MOST_LENGTHS:
            self.finish_shard()

    def finish_shard(self) -> None:
        """Write what is left, and the shard's index; return when all is on the disk.

        Raises:
            StoreError: the disk is full or fails.
        """
        if not self._samples:
            return
        self._flush()
        names = np.frombuffer(b"".join(self._chunks), np.uint8).reshape(-1, 32)
        chunk_lengths = np.array(self._chunk_lengths, np.int64)
        index = Index(names, chunk_lengths, np.concatenate(self._lengths)).encode()
        name = self._objects.put(index)
        self._objects.commit()
        self._done(Shard(self._samples, self._n_bytes, len(self._chunks), len(index), name))
        self._chunks, self._chunk_lengths, self._lengths = [], [], []
        self._samples = self._n_bytes = self._count = 0

    def _append(self, piece: Buffer) -> None:
        if not self._buffer and len(piece) == self._chunk_bytes:
            self._put(piece)  # as it lies
            return
        while len(self._buffer) + len(piece) > self._chunk_bytes:
            room = self._chunk_bytes - len(self._buffer)
            self._buffer += piece[:room]
            piece = piece[room:]
            self._flush()
        self._buffer += piece

    def _flush(self) -> None:
        if self._buffer:
            self._put(self._buffer)
            self._buffer.clear()

    def _put(self, chunk: Buffer) -> None:
        data = chunk if self._key is None else self._key.encrypt_chunk(self._number, chunk)
        self._number += 1
        self._chunks.append(self._objects.put(data))
        self._chunk_lengths.append(len(data))


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
                names = Index.decode(store.objects.get(shard.index)).names
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


def add(
    store: Store,
    given: Input,
    name: str,
    *,
    policy: Policy | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    private: SigningKey | None = None,
    progress: Callable[[int], None] = lambda n_bytes: None,
) -> Manifest:
    """Add a data set to a store.

    Memory: some chunks; what is added is never held.

    Args:
        store: where to.
        given: what.
        name: of the data set.
        policy: replicas, owner, encryption.
        chunk_bytes: most bytes of a chunk; samples are not cut unless they are larger.
        private: seal the chunks for this identity, the owner; see ``keys.py``.
        progress: called now and then with the bytes that were added so far.

    Returns:
        Its manifest.

    Raises:
        ConfigError: the name is another data set's, or an argument is out of its range.
        StoreError: there is nothing in it, it cannot be read, it changed meanwhile, or the disk is full.
            The data set is then not in the store; shards that are whole are kept for the next try.
    """
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    most = MOST_BYTES - (OVERHEAD_BYTES if private is not None else 0)
    if not LEAST_CHUNK_BYTES <= chunk_bytes <= most:
        raise ConfigError(f"--chunk-bytes must be in [{LEAST_CHUNK_BYTES}, {most}], got {chunk_bytes}")
    policy, key = policy or Policy(), None
    with store.lock():
        store.check_free(name)
        if private is not None:
            key = keys.key_to_add(store, name, private)
            policy = replace(policy, owner=private.public, encryption=Lock.of([key]).encode())
        words = repr((given.kind, given.fields, given.classes, chunk_bytes, policy)).encode()
        journal = Journal(store, name, blake3(words + given.fingerprint).digest())
        done = sum(shard.samples for shard in journal.shards)
        n_bytes = sum(shard.n_bytes for shard in journal.shards)
        progress(n_bytes)
        chunks = sum(shard.chunks for shard in journal.shards)
        packer = Packer(store, given.fields, chunk_bytes, journal.note, key, chunks)
        try:
            for block in given.blocks(done):
                if isinstance(block, Run):
                    packer.add_run(block)
                    n_bytes += len(block.data)
                else:
                    packer.add(block)
                    n_bytes += sum(map(_size, block.values))
                progress(n_bytes)
            packer.finish_shard()
        except BaseException as error:
            store.objects.abandon()
            if isinstance(error, StoreError) and not journal.shards:
                with contextlib.suppress(StoreError):
                    journal.end()
            raise
        shards = tuple(journal.shards)
        if not shards:
            journal.end()
            raise StoreError("there is nothing to add: it holds no sample")
        totals = sum(shard.samples for shard in shards), sum(shard.n_bytes for shard in shards)
        try:
            head = Head(
                name, given.kind, given.fields, given.classes, *totals, chunk_bytes, given.sources(), policy
            )
            manifest = Manifest(head, shards)
            manifest.encode()
        except (ValueError, FrameError) as error:
            raise StoreError(f"it cannot be described: {error}") from None
        if key is not None:
            keys.keep(store, manifest.root, key, policy.owner)
        store.add_manifest(manifest)
        journal.end()
        if key is not None:
            keys.forget(store, name)
    return manifest


def _size(value: Buffer | Stream) -> int:
    return value.n_bytes if isinstance(value, Stream) else len(value)


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
