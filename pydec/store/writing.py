"""Many objects one after the other at the speed of the disk: sealed, hashed and written in threads.

Who fills chunks waits for hash or disk only where these are slower than it, and what can be read anywhere is
read by the threads, too. Objects become durable in batches, in the order in which they were put, while the
next ones are written; memory is some chunks.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import NamedTuple

from pydec.crypto.vault import OVERHEAD_BYTES
from pydec.disk import Buffer, page_aligned
from pydec.store.erasure import Code
from pydec.store.objects import Batch, Objects, digest_of
from pydec.store.shard import PIECE_BYTES
from pydec.store.syncing import at_once

_BATCH = 64  # objects that are committed together; each is an open file until then
_AHEAD = 8  # chunks that wait for a thread or are in one
_COMMITS = 2  # that wait for the disk


class Chunk(NamedTuple):
    """A chunk that was put: its name and length, and one after the other names of fragments, and pieces."""

    name: bytes
    n_bytes: int
    fragments: bytes
    pieces: bytes


IndexOf = Callable[[list[Chunk]], bytes]
"""Makes the index object of a shard from its chunks."""
Done = Callable[[bytes, int], None]
"""Told the name and length of an index, in some thread, once it and its chunks are on the disk."""


class Writer:
    """Puts the chunks of one shard after the other.

    Args:
        objects: where they go.
        chunk_bytes: most bytes of one.
        seal: what is put in place of a chunk, by its number; None: the chunk.
        first_chunk: number of the first.
        code: put the fragments of each chunk in its place; None: put the chunk.

    Attributes:
        room: where the next chunk is to be written; another one after each ``put``.
    """

    def __init__(
        self,
        objects: Objects,
        chunk_bytes: int,
        seal: Callable[[int, Buffer], bytes] | None = None,
        first_chunk: int = 0,
        code: Code | None = None,
    ) -> None:
        self._objects, self._seal, self._number, self._code = objects, seal, first_chunk, code
        self._chunk_bytes, self._rooms = chunk_bytes, list[memoryview]()
        self._per_batch = max(1, _BATCH // (1 if code is None else code.fragments))
        self._ahead = threading.Semaphore(_AHEAD)
        self._committer: ThreadPoolExecutor | None = None
        self._commits: deque[Future[None]] = deque()
        self._error: BaseException | None = None
        self._batch, self._written = objects.batch(), list[Future[Chunk]]()
        self._shard: list[Future[Chunk]] = []
        self.room = self._next_room()

    def put(self, n_bytes: int) -> None:
        """Put the first bytes of the room.

        Raises:
            StoreError: the disk is full or fails, now or at a chunk before.
        """
        room = self.room
        self.room = self._next_room()
        self._submit(self._write, room, n_bytes)

    def put_span(self, read_at: Callable[[int, memoryview], None], n_bytes: int) -> None:
        """Put chunks that are read by the threads that write them; return when all are read.

        What one thread reads, hashes and writes stays in one processor's cache.

        Args:
            read_at: fills a room with the bytes from an offset.
            n_bytes: of whole chunks.

        Raises:
            StoreError: as for ``put``, or what ``read_at`` raised.
        """
        read: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        begun = 0
        try:
            for at in range(0, n_bytes, self._chunk_bytes):
                self._submit(self._read_and_write, partial(read_at, at), read)
                begun += 1
        finally:
            errors = [read.get() for _ in range(begun)]
        for error in errors:
            if error is not None:
                raise error

    def end_shard(self, index_of: IndexOf, done: Done) -> None:
        """Put the index of the chunks since the last shard.

        Raises:
            StoreError: the disk is full or fails, now or at a chunk before.
        """
        chunks, self._shard = self._shard, []

        def end(batch: Batch) -> Callable[[], None]:
            index = index_of([chunk.result() for chunk in chunks])
            name = batch.put(index)
            return lambda: done(name, len(index))

        self._commit(end)

    def finish(self) -> None:
        """Return when all is on the disk.

        Raises:
            StoreError: the disk is full or fails.
        """
        while self._commits:
            self._commits.popleft().result()

    def close(self) -> None:
        """Give up the shard that has not ended, once those that have are on the disk; idempotent."""
        wait(self._commits)
        wait(self._written)
        self._commits.clear()
        self._written.clear()
        self._batch.abandon()
        if self._committer is not None:
            self._committer.shutdown()
            self._committer = None

    def _submit(self, action: Callable[..., Chunk], *values: object) -> None:
        if len(self._written) == self._per_batch:
            self._commit(None)
        self._ahead.acquire()
        future = self._objects.submit(action, self._batch, self._number, *values)
        future.add_done_callback(lambda _: self._ahead.release())
        self._number += 1
        self._written.append(future)
        self._shard.append(future)

    def _read_and_write(
        self,
        batch: Batch,
        number: int,
        fill: Callable[[memoryview], None],
        read: queue.SimpleQueue[BaseException | None],
    ) -> Chunk:
        room, error = self._next_room(), None
        try:
            fill(room[: self._chunk_bytes])
        except BaseException as found:
            error = found
            raise
        finally:
            read.put(error)
        return self._write(batch, number, room, self._chunk_bytes)

    def _write(self, batch: Batch, number: int, room: memoryview, n_bytes: int) -> Chunk:
        try:
            if self._seal is not None:
                sealed = self._seal(number, room[:n_bytes])
                n_bytes = len(sealed)
                room[:n_bytes] = sealed
            chunk = room[:n_bytes]
            if self._code is None:
                return Chunk(batch.put(chunk), n_bytes, b"", self._pieces(chunk))
            fragments = b"".join(map(batch.put, self._code.encode(chunk)))
            return Chunk(digest_of(chunk), n_bytes, fragments, b"")
        finally:
            self._rooms.append(room)

    def _pieces(self, chunk: memoryview) -> bytes:
        if self._seal is not None or len(chunk) <= PIECE_BYTES:
            return b""
        return b"".join(digest_of(chunk[at : at + PIECE_BYTES]) for at in range(0, len(chunk), PIECE_BYTES))

    def _commit(self, end: Callable[[Batch], Callable[[], None]] | None) -> None:
        batch, written = self._batch, self._written
        self._batch, self._written = self._objects.batch(), []
        if self._committer is None and self._objects.threaded:
            self._committer = ThreadPoolExecutor(1, "pydec-commit")
        submit = at_once if self._committer is None else self._committer.submit
        self._commits.append(submit(self._committed, batch, written, end))
        while len(self._commits) > _COMMITS:
            self._commits.popleft().result()

    def _committed(
        self, batch: Batch, written: list[Future[Chunk]], end: Callable[[Batch], Callable[[], None]] | None
    ) -> None:
        try:
            wait(written)
            if self._error is not None:
                raise self._error
            for future in written:
                future.result()
            done = end(batch) if end is not None else None
            batch.commit()
            if done is not None:
                done()
        except BaseException as error:
            self._error = error
            batch.abandon()
            raise

    def _next_room(self) -> memoryview:
        """The room that was used last, as that is in some cache yet."""
        try:
            return self._rooms.pop()
        except IndexError:
            return page_aligned(self._chunk_bytes + OVERHEAD_BYTES)
