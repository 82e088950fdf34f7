"""Garbage goes, at whatever call a removal crashed before; what is needed, being written or in use stays."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from pathlib import Path

import pytest

from pydec.errors import StoreError
from pydec.store import adding
from pydec.store.adding import add
from pydec.store.collecting import Garbage, collect, ledgers, note_ledger
from pydec.store.inputs import open_input
from pydec.store.journal import unfinished
from pydec.store.store import Store
from pydec.store.upkeep import objects_of, verify
from tests.consensus.lossy_disk import Crash, LossyDisk
from tests.store.cases import CHUNK, put, stop, write
from tests.store.test_upkeep import AT, adds

EMPTY = Garbage(0, 0, 0)


class Removing(LossyDisk):
    """Removals are calls that fail, too."""

    def remove(self, path: Path) -> None:
        if path in self.files and self._changes():
            self._stop()
        super().remove(path)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)


def test_what_no_manifest_needs_goes_and_nothing_else(store, tmp_path):
    manifest = put(store, write(tmp_path / "in", {b"a": random.Random(0).randbytes(3 * CHUNK)})).manifest
    assert collect(store) == EMPTY
    store.objects.put(b"garbage")
    store.objects.put(b"more")
    store.objects.commit()
    left = store.objects.path(b"x" * 32).parent
    left.mkdir()
    (left / ".7878.999999999-7f.tmp").write_bytes(b"of a process that is gone")
    living = left / f".7878.{os.getppid()}-7f.tmp"
    living.write_bytes(b"of one that lives")
    (store.directory / "quarantine" / "ab-0").write_bytes(b"damaged")
    (store.directory / "adding" / ".d.tmp").write_bytes(b"half")
    assert collect(store, dry_run=True) == collect(store) == Garbage(2, 11, 3)
    assert collect(store) == EMPTY
    assert living.exists()
    assert verify(store, manifest).whole


@pytest.mark.usefixtures("small_shards")
def test_what_an_interrupted_add_has_stays_for_the_next_try(store, tmp_path):
    write(tmp_path / "in", {b"%d" % n: random.Random(n).randbytes(3000) for n in range(6)})
    with pytest.raises(KeyboardInterrupt):
        add(store, open_input(str(tmp_path / "in")), "d", chunk_bytes=CHUNK, progress=stop(12_000))
    (shards,) = unfinished(store).values()
    collect(store)
    assert shards
    assert all(store.objects.has(shard.index) for shard in shards)
    put(store, tmp_path / "in")
    assert collect(store) == EMPTY


def test_nothing_is_removed_while_another_writes_or_adds(store):
    store.objects.put(b"soon to be named")
    store.objects.commit()
    with Store(store.directory) as other:
        with other.writing(), store.writing():
            with pytest.raises(StoreError, match="another process writes into it"):
                collect(store)
            with other.lock(), pytest.raises(StoreError, match="another process writes into it"):
                other.collect()
        with store.alone(), pytest.raises(StoreError, match="collects garbage"), other.writing():
            pass
        with other.lock(), pytest.raises(StoreError, match="adds or removes"):
            collect(store)
    assert collect(store).objects == 1


def test_a_data_set_that_a_job_reads_is_not_forgotten(store, tmp_path):
    manifest = put(store, write(tmp_path / "in", {b"a": b"1"})).manifest
    with Store(store.directory) as job, job.using(manifest.root), store.using(manifest.root):
        with pytest.raises(StoreError, match="in use by a running job"):
            store.forget(manifest.root)
        assert store.roots() == [manifest.root]
    store.forget(manifest.root)
    assert store.roots() == []


def test_a_damaged_manifest_keeps_everything(store, tmp_path):
    manifest = put(store, write(tmp_path / "in", {b"a": b"1"})).manifest
    (store.directory / "manifests" / manifest.root.hex()).write_bytes(b"?")
    store.objects.put(b"garbage")
    store.objects.commit()
    before = list(store.objects.names())
    with pytest.raises(StoreError, match="cannot be used"):
        collect(store)
    assert list(store.objects.names()) == before


def test_ledgers_are_remembered_once(store, tmp_path):
    for name in ("b", "a", "b"):
        note_ledger(store, tmp_path / name)
    assert ledgers(store) == [tmp_path / "a", tmp_path / "b"]
    with Store(store.directory) as again:
        assert ledgers(again) == ledgers(store)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("error", [None, errno.EIO])
def test_a_removal_that_fails_or_crashes_anywhere_leaves_a_whole_data_set_or_garbage(error):
    def made(seed: int = 0) -> tuple[Removing, Store]:
        disk = Removing(seed)
        store = adds(disk)
        store.objects.put(b"garbage")
        store.objects.commit()
        disk.calls = 0
        return disk, store

    def goes(store: Store, root: bytes) -> None:
        with store.lock():
            store.forget(root)
        collect(store)

    calls, store = made()
    root = store.find("d").root
    goes(store, root)
    assert calls.calls > len(list(objects_of(adds(LossyDisk()), adds(LossyDisk()).find("d"))))
    for at in range(calls.calls):
        disk, store = made(at)
        disk.fail_at, disk.error = at, error
        with contextlib.suppress(Crash, StoreError):
            goes(store, root)
        if error is None:
            disk.crash()
        disk.fail_at, disk.error = -1, None
        store = Store(AT, disk=disk, syncs=1)
        if store.roots():
            assert verify(store, store.find("d")).whole
        collect(store)
        assert collect(store) == EMPTY
        assert bool(list(store.objects.names())) == bool(store.roots())
