"""Objects: whole or not there, verified on every read, and nothing half-visible when a call fails."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from pydec.disk import Disk
from pydec.errors import ChunkError, StoreError
from pydec.store import syncing
from pydec.store.objects import MOST_BYTES, Objects, digest_of
from tests.consensus.lossy_disk import Crash, LossyDisk

AT = Path("/store")


@pytest.fixture
def objects(tmp_path):
    made = Objects(tmp_path)
    made.create()
    yield made
    made.close()


def test_what_was_put_is_read_by_its_name(objects):
    names = [objects.put(bytes([n]) * (1 + 1000 * n)) for n in range(200)]
    objects.commit()
    assert [objects.get(name) for name in names] == [bytes([n]) * (1 + 1000 * n) for n in range(200)]
    assert list(objects.names()) == sorted(names)
    assert objects.put(b"\0") == names[0] == digest_of(b"\0")


def test_an_object_is_not_there_before_it_is_committed(objects):
    name = objects.put(b"abc")
    assert not objects.has(name)
    with pytest.raises(ChunkError, match="not in"):
        objects.get(name)
    objects.abandon()
    objects.commit()
    assert not objects.has(name)


@pytest.mark.parametrize("size", [0, MOST_BYTES + 1])
def test_sizes_out_of_range_are_refused(objects, size):
    with pytest.raises(ValueError, match="an object has 1 to"):
        objects.put(bytes(size))


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "empty"])
def test_damage_is_found_on_read_moved_away_and_put_again(objects, tmp_path, damage):
    name = objects.put(b"abcdef" * 100)
    objects.commit()
    path = objects.path(name)
    data = path.read_bytes()
    flipped = data[:7] + bytes([data[7] ^ 1]) + data[8:]
    path.write_bytes({"flip": flipped, "cut": data[:-1], "grow": data + b"x", "empty": b""}[damage])
    with pytest.raises(ChunkError, match="damaged") as caught:
        objects.get(name)
    assert (caught.value.digest, caught.value.missing) == (name, False)
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == [f"{name.hex()}-0"]
    objects.adopt(name, data)
    assert objects.get(name) == data


def test_a_damaged_object_is_replaced_when_the_same_is_put(objects):
    name = objects.put(b"abcdef")
    objects.commit()
    objects.path(name).write_bytes(b"abcdeg")
    objects.put(b"abcdef")
    objects.commit()
    assert objects.get(name) == b"abcdef"


def test_a_file_that_is_too_large_is_damage_and_is_not_read(objects):
    name = objects.put(b"abc")
    objects.commit()
    with objects.path(name).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ChunkError, match="damaged"):
        objects.get(name)


def test_what_is_not_the_object_is_not_adopted(objects):
    with pytest.raises(ChunkError, match="in place of"):
        objects.adopt(digest_of(b"abc"), b"abd")
    assert list(objects.names()) == []


@pytest.mark.parametrize("n_bytes", [(1 << 18) - 1, 1 << 18, (1 << 20) + 7])
def test_an_object_is_the_same_whether_or_not_it_is_to_be_read_again(objects, n_bytes):
    data = random.Random(n_bytes).randbytes(n_bytes)
    name = objects.put(data)
    objects.commit()
    assert [objects.get(name, again=again) for again in (True, False, True)] == [data] * 3
    path = objects.path(name)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ChunkError, match="damaged"):
        objects.get(name)


def test_damage_is_found_by_the_first_read_that_is_to_be_followed_by_others(objects):
    name = objects.put(bytes(1 << 20))
    objects.commit()
    objects.path(name).write_bytes(b"\1" + bytes((1 << 20) - 1))
    with pytest.raises(ChunkError, match="damaged"):
        objects.get(name, again=True)


def writes(objects: Objects) -> list[bytes]:
    """What the tests of failing calls do."""
    names = [objects.put(bytes([n]) * 2000) for n in range(4)]
    objects.commit()
    return names


@pytest.mark.parametrize("at_once", [True, False], ids=["synced at once", "synced one by one"])
def test_no_failing_call_leaves_half_an_object(at_once, monkeypatch):
    monkeypatch.setattr(syncing, "_MANY", 3)
    calls = LossyDisk(whole=at_once)
    names = writes(Objects(AT, calls, syncs=1))
    for at in range(calls.calls):
        for error in (errno.ENOSPC, errno.EIO):
            disk = LossyDisk(seed=at, fail_at=at, error=error, whole=at_once)
            objects = Objects(AT, disk, syncs=1)
            with pytest.raises(StoreError, match="full" if error == errno.ENOSPC else "cannot be written"):
                writes(objects)
            whole(objects, names)
            assert not any(path.name.endswith(".tmp") for path in disk.files)
            disk.fail_at = -1
            assert [objects.get(name)[:1] for name in writes(objects)] == [b"\0", b"\1", b"\2", b"\3"]


@pytest.mark.parametrize("at_once", [True, False], ids=["synced at once", "synced one by one"])
def test_a_crash_at_any_call_leaves_whole_objects_or_damage_that_is_seen(at_once, monkeypatch):
    monkeypatch.setattr(syncing, "_MANY", 3)
    calls = LossyDisk(whole=at_once)
    names = writes(Objects(AT, calls, syncs=1))
    for at in range(calls.calls):
        for seed in range(5):
            disk = LossyDisk(seed=seed, fail_at=at, whole=at_once)
            with pytest.raises(Crash):
                writes(Objects(AT, disk, syncs=1))
            disk.crash()
            objects = Objects(AT, disk, syncs=1)
            whole(objects, names)
            objects.sweep()
            assert not any(path.name.endswith(".tmp") for path in disk.files)
            writes(objects)
            disk.crash()
            assert [Objects(AT, disk, syncs=1).get(name)[0] for name in names] == [0, 1, 2, 3]


def test_a_temporary_file_of_a_killed_process_of_this_number_is_in_nobodys_way(objects):
    batch = objects.batch()
    path = objects.path(digest_of(b"abc"))
    path.parent.mkdir()
    path.with_name(f".{path.name[:16]}.{os.getpid()}-{id(batch):x}.tmp").write_bytes(b"ab")
    assert batch.put(b"abc") == digest_of(b"abc")
    batch.commit()
    assert objects.get(digest_of(b"abc")) == b"abc"
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_files_are_synced_one_by_one_where_the_file_system_is_not_known(objects, monkeypatch):
    synced = []
    monkeypatch.setattr(syncing, "_MANY", 3)
    monkeypatch.setattr("pydec.disk._SYNCED_WHOLE", frozenset())
    monkeypatch.setattr(Disk, "sync", lambda self, descriptor: synced.append(descriptor))
    names = [objects.put(bytes([n])) for n in range(5)]
    objects.commit()
    assert len(synced) == 5
    assert [objects.get(name) for name in names] == [bytes([n]) for n in range(5)]


def whole(objects: Objects, names: list[bytes]) -> None:
    """Every object that has its name is right: it was synced before it was renamed."""
    for number, name in enumerate(names):
        if objects.has(name):
            assert objects.get(name) == bytes([number]) * 2000
