"""The writer: chunks in order, durable before their shard is told, and nothing left behind when one fails."""

from __future__ import annotations

import errno
import os
import random
import threading
import time

import pytest

from pydec.disk import Disk, page_aligned
from pydec.errors import StoreError
from pydec.store.objects import Objects, digest_of
from pydec.store.writing import Chunk, Writer

CHUNK = 300_000


class FullDisk(Disk):
    """Has room for so many files."""

    def __init__(self, files: int) -> None:
        self._left, self._lock = files, threading.Lock()

    def write_new(self, path, data):
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        return super().write_new(path, data)


def chunks(count: int) -> list[bytes]:
    rng = random.Random(count)
    return [rng.randbytes(rng.randrange(1, CHUNK)) for _ in range(count)]


def fill(writer: Writer, data: bytes) -> None:
    writer.room[: len(data)] = data
    writer.put(len(data))


def opened(path, disk=None, syncs=4) -> Objects:
    objects = Objects(path, disk or Disk(), syncs)
    objects.create()
    return objects


@pytest.mark.parametrize("syncs", [1, 4])
def test_shards_are_told_in_order_once_they_can_be_read(tmp_path, syncs):
    objects, told = opened(tmp_path, syncs=syncs), []
    writer = Writer(objects, CHUNK)
    wanted = [chunks(count) for count in (1, 70, 3)]

    def done(name: bytes, n_bytes: int) -> None:
        index = objects.get(name)
        names = [index[at : at + 32] for at in range(0, len(index), 32)]
        told.append(([objects.get(name) for name in names], n_bytes))

    for shard in wanted:
        for data in shard:
            fill(writer, data)
        writer.end_shard(lambda found: b"".join(chunk.name for chunk in found), done)
    writer.finish()
    writer.close()
    objects.close()
    assert told == [(shard, 32 * len(shard)) for shard in wanted]


def test_what_is_sealed_is_named_by_what_is_on_the_disk(tmp_path):
    objects, found = opened(tmp_path), []
    writer = Writer(objects, CHUNK, lambda number, data: b"%d:" % number + bytes(data)[::-1], first_chunk=7)
    fill(writer, b"abc")
    fill(writer, b"def")

    def index_of(chunks: list[Chunk]) -> bytes:
        found.extend(chunks)
        return b"index"

    writer.end_shard(index_of, lambda *_: None)
    writer.finish()
    writer.close()
    objects.close()
    assert found == [Chunk(digest_of(b"7:cba"), 5, b"", b""), Chunk(digest_of(b"8:fed"), 5, b"", b"")]


@pytest.mark.parametrize("syncs", [1, 4])
def test_a_span_is_put_chunk_by_chunk_among_others(tmp_path, syncs):
    objects, found = opened(tmp_path, syncs=syncs), []
    writer = Writer(objects, CHUNK)
    data = random.Random(0).randbytes(40 * CHUNK)

    def read_at(offset: int, room: memoryview) -> None:
        room[:] = data[offset : offset + len(room)]

    def index_of(chunks: list[Chunk]) -> bytes:
        found.extend(chunk.name for chunk in chunks)
        return b"index"

    fill(writer, b"before")
    writer.put_span(read_at, len(data))
    fill(writer, b"after")
    writer.end_shard(index_of, lambda *_: None)
    writer.finish()
    writer.close()
    assert b"".join(map(objects.get, found)) == b"before" + data + b"after"
    objects.close()


@pytest.mark.parametrize("syncs", [1, 4])
def test_a_span_that_cannot_be_read_is_an_error_once_no_thread_reads_it(tmp_path, syncs):
    objects, reading = opened(tmp_path, syncs=syncs), []
    writer = Writer(objects, CHUNK)

    def read_at(offset: int, room: memoryview) -> None:
        reading.append(offset)
        if offset == 3 * CHUNK:
            raise StoreError("gone")
        time.sleep(0.001)
        reading.remove(offset)

    with pytest.raises(StoreError, match="gone"):
        writer.put_span(read_at, 20 * CHUNK)
    assert reading == [3 * CHUNK]
    fill(writer, b"after")
    told = []

    def end() -> None:
        writer.end_shard(lambda found: b"index", lambda *_: told.append(1))
        writer.finish()

    with pytest.raises(StoreError, match="gone"):
        end()
    writer.close()
    objects.close()
    assert told == []


@pytest.mark.parametrize("room_for", [0, 1, 31, 40, 69])
def test_a_full_disk_is_an_error_and_leaves_no_temporary_file(tmp_path, room_for):
    objects, told = opened(tmp_path, FullDisk(room_for)), []
    writer = Writer(objects, CHUNK)

    def put_all() -> None:
        for data in chunks(70):
            fill(writer, data)
        writer.end_shard(lambda found: b"index", lambda *_: told.append(1))
        writer.finish()

    with pytest.raises(StoreError, match="the disk is full"):
        put_all()
    writer.close()
    objects.close()
    assert told == []
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".tmp")]


def test_equal_chunks_are_one_object(tmp_path):
    objects = opened(tmp_path)
    writer = Writer(objects, CHUNK)
    for _ in range(100):
        fill(writer, b"x" * CHUNK)
    writer.end_shard(lambda found: b"".join(sorted({chunk.name for chunk in found})), lambda *_: None)
    writer.finish()
    writer.close()
    objects.close()
    assert set(objects.names()) == {digest_of(b"x" * CHUNK), digest_of(digest_of(b"x" * CHUNK))}


@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 18, (1 << 18) + 1, (1 << 20) - 1, 1 << 20])
@pytest.mark.parametrize("offset", [0, 8, 4096])
def test_a_new_file_holds_what_was_given_wherever_it_lies_in_memory(tmp_path, size, offset):
    disk, room = Disk(), page_aligned((1 << 20) + 4096)
    room[:] = random.Random(size).randbytes(len(room))
    data = room[offset : offset + size]
    descriptor = disk.write_new(tmp_path / "new", data)
    disk.sync(descriptor)
    disk.close(descriptor)
    assert (tmp_path / "new").read_bytes() == data
    with pytest.raises(FileExistsError):
        disk.write_new(tmp_path / "new", data)
