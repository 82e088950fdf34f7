"""Add a data set: pack samples into chunks, chunks into shards, and go on where an interrupted add was.

The same command goes on after the last shard that is noted as whole on the disk (``journal.py``), if what
is to be added is still the same by its fingerprint; else it begins anew. The data set is in the store only
with its manifest, which comes last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from pydec.crypto.keyring import Lock
from pydec.crypto.signing import SigningKey
from pydec.crypto.vault import OVERHEAD_BYTES, DatasetKey
from pydec.disk import Buffer
from pydec.errors import ConfigError, FrameError, StoreError
from pydec.store import keys
from pydec.store.appending import joined, policy_of
from pydec.store.erasure import Code
from pydec.store.inputs.base import Input, Run, Sample, Span, Stream
from pydec.store.journal import Journal
from pydec.store.manifest import (
    CHUNK_BYTES,
    LEAST_CHUNK_BYTES,
    NO_DIGEST,
    Field,
    Head,
    Manifest,
    Policy,
    Shard,
    check_name,
)
from pydec.store.objects import MOST_BYTES
from pydec.store.shard import MOST_CHUNKS, MOST_LENGTHS, MOST_PIECES, Index
from pydec.store.store import Store
from pydec.store.writing import Chunk, Writer

SHARD_BYTES = 1 << 26
_LET_OTHERS_BYTES = 1 << 16


class Packer:
    """Makes shards of samples.

    Args:
        store: where their objects go.
        fields: of every sample.
        chunk_bytes: most bytes of a chunk.
        done: called with each shard, once it is on the disk.
        key: seals the chunks of a private data set.
        first_chunk: number of the first of them.
        code: of the chunks' fragments; None: chunks are put as they are.
    """

    def __init__(
        self,
        store: Store,
        fields: tuple[Field, ...],
        chunk_bytes: int,
        done: Callable[[Shard], None],
        key: DatasetKey | None = None,
        first_chunk: int = 0,
        code: Code | None = None,
    ) -> None:
        seal = None if key is None else key.encrypt_chunk
        self._writer = Writer(store.objects, chunk_bytes, seal, first_chunk, code)
        self._done, self._chunk_bytes, self._code = done, chunk_bytes, code
        coded = 0 if code is None else 32 * code.fragments
        self._most_chunks = min(MOST_CHUNKS, (MOST_BYTES - 4096) // (36 + coded))
        self._fixed = [field.n_bytes for field in fields]
        self._columns = self._fixed.count(0)
        self._filled = 0  # bytes of the chunk that is being made
        self._lengths: list[NDArray[np.int64]] = []
        self._samples = self._n_bytes = self._count = 0

    def add(self, sample: Sample) -> None:
        """One more sample.

        Raises:
            StoreError: the disk is full or fails, or the sample is too large for any index.
        """
        sizes = [_size(value) for value in sample.values]
        lengths = [size for size, fixed in zip(sizes, self._fixed, strict=True) if not fixed]
        self._add(sum(sizes), np.array([lengths], np.int64).reshape(1, self._columns), sample.values)

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
            room = min(self._chunk_bytes - self._filled, SHARD_BYTES - self._n_bytes)
            last = int(np.searchsorted(starts, begin + room, "right")) - 1
            if self._columns:
                last = min(last, first + -(-(MOST_LENGTHS - self._count) // self._columns))
            if last == first:
                last = first + 1
                end = int(starts[last])
                self._add(end - begin, run.lengths[first:last], [data[begin:end]])
            else:
                self._append(data[begin : int(starts[last])])
                self._note(last - first, int(starts[last]) - begin, run.lengths[first:last])
            first = last

    def _add(self, total: int, lengths: NDArray[np.int64], values: Sequence[Buffer | Stream | Span]) -> None:
        spans = sum(isinstance(value, Span) and value.n_bytes >= self._chunk_bytes for value in values)
        if -(-total // self._chunk_bytes) + spans > self._most_chunks:
            raise StoreError(
                f"a sample of {total} bytes makes more than {self._most_chunks} chunks of "
                f"{self._chunk_bytes} bytes; use --chunk-bytes {MOST_BYTES}, or cut it"
            )
        if self._samples and self._n_bytes + total > SHARD_BYTES:
            self.finish_shard()
        if self._filled + total > self._chunk_bytes and not spans:
            self._flush()
        for value in values:
            if isinstance(value, Span):
                self._read(value)
            else:
                for piece in value.pieces if isinstance(value, Stream) else (value,):
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
        """End a shard: write what is left of it, and its index.

        Raises:
            StoreError: the disk is full or fails, now or before.
        """
        if not self._samples:
            return
        self._flush()
        samples, n_bytes, lengths = self._samples, self._n_bytes, self._lengths
        chunks = 0

        def index_of(found: list[Chunk]) -> bytes:
            nonlocal chunks
            chunks = len(found)
            names = np.frombuffer(b"".join(chunk.name for chunk in found), np.uint8).reshape(-1, 32)
            sizes = np.array([chunk.n_bytes for chunk in found], np.int64)
            coded = None
            if self._code is not None:
                row = np.frombuffer(b"".join(chunk.fragments for chunk in found), np.uint8)
                coded = row.reshape(len(found), self._code.fragments, 32)
            pieces = np.frombuffer(b"".join(chunk.pieces for chunk in found), np.uint8).reshape(-1, 32)
            some = pieces if 0 < len(pieces) <= MOST_PIECES else None
            return Index(names, sizes, np.concatenate(lengths), coded, some).encode()

        def done(name: bytes, index_bytes: int) -> None:
            self._done(Shard(samples, n_bytes, chunks, index_bytes, name))

        self._writer.end_shard(index_of, done)
        self._lengths = []
        self._samples = self._n_bytes = self._count = 0

    def finish(self) -> None:
        """End the last shard; return when all is on the disk.

        Raises:
            StoreError: the disk is full or fails.
        """
        self.finish_shard()
        self._writer.finish()

    def close(self) -> None:
        """Give up what is in no shard that has ended, once these are on the disk; idempotent."""
        self._writer.close()

    def _append(self, piece: Buffer) -> None:
        view = memoryview(piece)
        while self._filled + len(view) > self._chunk_bytes:
            room = self._chunk_bytes - self._filled
            self._fill(view[:room])
            view = view[room:]
            self._flush()
        self._fill(view)

    def _fill(self, piece: memoryview) -> None:
        room = self._writer.room[self._filled : self._filled + len(piece)]
        if len(piece) < _LET_OTHERS_BYTES:
            room[:] = piece
        else:  # unlike the line above it lets other threads run
            np.copyto(np.frombuffer(room, np.uint8), np.frombuffer(piece, np.uint8))
        self._filled += len(piece)

    def _read(self, span: Span) -> None:
        """Put a value's whole chunks straight from where it is: equal ones are then equal chunks, too."""
        at = 0
        if span.n_bytes >= self._chunk_bytes:
            self._flush()
            at = span.n_bytes // self._chunk_bytes * self._chunk_bytes
            self._writer.put_span(span.read_at, at)
        while at < span.n_bytes:
            if self._filled == self._chunk_bytes:
                self._flush()
            end = min(self._filled + span.n_bytes - at, self._chunk_bytes)
            span.read_at(at, self._writer.room[self._filled : end])
            at, self._filled = at + end - self._filled, end

    def _flush(self) -> None:
        if self._filled:
            self._writer.put(self._filled)
            self._filled = 0


def add(
    store: Store,
    given: Input,
    name: str,
    *,
    policy: Policy | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    private: SigningKey | None = None,
    extends: tuple[Manifest, DatasetKey] | None = None,
    onto: Manifest | None = None,
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
        extends: a private data set of this owner, whose readers are to read this one too, and its newest key.
        onto: data set of this store that the new one begins with, in its chunk size; see ``appending.py``.
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
    if onto is not None:
        policy, chunk_bytes = policy_of(onto, given, policy, private), onto.head.chunk_bytes
    most = MOST_BYTES - (OVERHEAD_BYTES if private is not None else 0)
    if not LEAST_CHUNK_BYTES <= chunk_bytes <= most:
        raise ConfigError(f"--chunk-bytes must be in [{LEAST_CHUNK_BYTES}, {most}], got {chunk_bytes}")
    policy, key = policy or Policy(), None
    code = policy.code
    if code is not None and chunk_bytes < LEAST_CHUNK_BYTES * code.fragments:
        raise ConfigError(
            f"--chunk-bytes must be at least {LEAST_CHUNK_BYTES * code.fragments} for {policy}, so that "
            f"the index of a shard stays small; got {chunk_bytes}"
        )
    with store.lock():
        store.check_free(name)
        if private is not None:
            parent, readers = NO_DIGEST, {private.public}
            if extends is None:
                key = keys.key_to_add(store, name, private)
            else:
                parent, key = extends[0].root, extends[1]
                readers |= keys.readers(store, parent, key.generation)
            lock = Lock.of([key]).encode()
            policy = replace(policy, owner=private.public, parent=parent, encryption=lock)
        words = repr((given.kind, given.fields, given.classes, chunk_bytes, policy)).encode()
        journal = Journal(store, name, blake3(words + given.fingerprint).digest())
        done = sum(shard.samples for shard in journal.shards)
        n_bytes = sum(shard.n_bytes for shard in journal.shards)
        progress(n_bytes)
        before = () if onto is None else onto.shards
        chunks = sum(shard.chunks for shard in (*before, *journal.shards))
        packer = Packer(store, given.fields, chunk_bytes, journal.note, key, chunks, code)
        try:
            for block in given.blocks(done):
                if isinstance(block, Run):
                    packer.add_run(block)
                    n_bytes += len(block.data)
                else:
                    packer.add(block)
                    n_bytes += sum(map(_size, block.values))
                progress(n_bytes)
            packer.finish()
        except BaseException as error:
            packer.close()
            if isinstance(error, StoreError) and not journal.shards:
                with contextlib.suppress(StoreError):
                    journal.end()
            raise
        packer.close()
        shards = tuple(journal.shards)
        if not shards:
            journal.end()
            raise StoreError("there is nothing to add: it holds no sample")
        totals = sum(shard.samples for shard in shards), sum(shard.n_bytes for shard in shards)
        try:
            head = Head(
                name, given.kind, given.fields, given.classes, *totals, chunk_bytes, given.sources(), policy
            )
            manifest = Manifest(head, shards) if onto is None else joined(onto, head, shards)
            manifest.encode()
        except (ValueError, FrameError) as error:
            raise StoreError(f"it cannot be described: {error}") from None
        if key is not None:
            keys.keep(store, manifest.root, key, readers)
        store.add_manifest(manifest)
        journal.end()
        if key is not None:
            keys.forget(store, name)
    return manifest


def _size(value: Buffer | Stream | Span) -> int:
    return value.n_bytes if isinstance(value, (Stream, Span)) else len(value)
