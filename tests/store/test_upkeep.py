"""Damage is found, named and repaired in place; and no crash of an add or a repair leaves half a data set."""

from __future__ import annotations

import contextlib
import errno
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pydec.errors import ConfigError, StoreError
from pydec.store import adding, syncing
from pydec.store.adding import add
from pydec.store.inputs.base import Sample
from pydec.store.journal import unfinished
from pydec.store.manifest import Field, Kind
from pydec.store.reading import Samples
from pydec.store.store import Store
from pydec.store.upkeep import copy, objects_of, presence, repair, verify
from tests.consensus.lossy_disk import Crash, LossyDisk
from tests.store.cases import CHUNK, put, values, write

AT = Path("/store")


def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "in", {f"{n}".encode(): random.Random(n).randbytes(5000) for n in range(20)})


def spoil(store: Store, names: list[bytes], how: str) -> None:
    for name in names:
        path = store.objects.path(name)
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1] + b"\0\0")


@pytest.mark.parametrize("how", ["missing", "damaged"])
@pytest.mark.parametrize("which", ["chunks", "indices", "all"])
def test_what_is_lost_is_found_and_comes_back_from_another_store(store, tmp_path, how, which, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 5 * CHUNK)
    samples = put(store, folder(tmp_path))
    manifest = samples.manifest
    indices = [shard.index for shard in manifest.shards]
    everything = list(objects_of(store, manifest))
    chunks = [name for name in everything if name not in indices]
    lost = {"chunks": chunks[::3], "indices": indices[1:], "all": everything}[which]
    before = values(samples)
    with Store(tmp_path / "other", create=True) as other:
        assert copy(other, manifest, [store.objects]).whole
        spoil(store, lost, how)
        report = verify(store, manifest)
        assert sorted(report.missing if how == "missing" else report.damaged) == sorted(
            set(lost) - (set(chunks) if which == "all" else set())
        )
        assert not report.whole
        report = repair(store, manifest, [other.objects])
        assert report.whole
        assert sorted(report.repaired) == sorted(lost)
        assert presence(store, manifest) == (len(everything), len(everything), 0, 0)
    assert values(Samples(manifest, store.objects)) == before
    assert verify(store, manifest).whole


def test_what_nobody_has_stays_lost_and_is_named(store, tmp_path):
    manifest = put(store, folder(tmp_path)).manifest
    lost = list(objects_of(store, manifest))[3]
    spoil(store, [lost], "missing")
    with Store(tmp_path / "other", create=True) as other:
        report = repair(store, manifest, [other.objects])
    assert (report.missing, report.repaired, report.whole) == ([lost], [], False)


def test_a_copy_that_is_not_whole_is_no_data_set(store, tmp_path):
    manifest = put(store, folder(tmp_path)).manifest
    spoil(store, [list(objects_of(store, manifest))[3]], "damaged")
    with Store(tmp_path / "other", create=True) as other:
        assert not copy(other, manifest, [store.objects]).whole
        assert other.roots() == []


@pytest.mark.parametrize("how", ["cut", "flip", "other"])
def test_a_damaged_manifest_is_named(store, tmp_path, how):
    manifest = put(store, folder(tmp_path)).manifest
    path = store.directory / "manifests" / manifest.root.hex()
    data = path.read_bytes()
    other = put(store, write(tmp_path / "more", {b"a": b"1"}), "other").manifest.encode()
    path.write_bytes({"cut": data[:-1], "flip": data[:-1] + bytes([data[-1] ^ 1]), "other": other}[how])
    with pytest.raises(StoreError, match=r"damaged|cannot be used"):
        store.manifest(manifest.root)
    with pytest.raises(ConfigError, match="no data set 'd'"):
        store.find("d")
    with store.lock(), pytest.raises(StoreError):
        store.collect()


def test_a_folder_of_other_things_is_no_store(tmp_path):
    write(tmp_path, {b"a": b"1"})
    with pytest.raises(ConfigError, match="holds other things"):
        Store(tmp_path, create=True)
    with pytest.raises(ConfigError, match="there is no store"):
        Store(tmp_path)
    with Store(tmp_path / "new", create=True):
        pass
    (tmp_path / "new" / "format").write_bytes(b"pydec store 9\n")
    with pytest.raises(StoreError, match="of another pydec"):
        Store(tmp_path / "new")


class Given:
    """Samples in memory."""

    kind, classes, n_bytes, fingerprint = "files", (), 0, b"f" * 32
    fields = (Field("path", Kind.BYTES), Field("content", Kind.BYTES))

    def blocks(self, start):
        for number in range(start, 6):
            yield Sample((b"%d" % number, bytes([number]) * 3000))

    def sources(self):
        return ()


def adds(disk: LossyDisk) -> Store:
    """What the tests of failing calls do: three shards."""
    store = Store(AT, create=True, disk=disk, syncs=1)
    add(store, Given(), "d", chunk_bytes=CHUNK)
    return store


@pytest.fixture(params=[100, 3], ids=["synced one by one", "synced at once"])
def small_shards(request, monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)
    monkeypatch.setattr(syncing, "_MANY", request.param)


@pytest.mark.usefixtures("small_shards")
def test_an_add_that_fails_at_any_call_adds_nothing_and_goes_on_later():
    calls = LossyDisk()
    root = adds(calls).roots()
    assert calls.calls > 40
    for at in range(calls.calls):
        disk = LossyDisk(seed=at, fail_at=at, error=errno.ENOSPC)
        with pytest.raises(StoreError):
            adds(disk)
        disk.fail_at = -1
        goes_on(disk, root)


@pytest.mark.usefixtures("small_shards")
def test_an_add_that_crashes_at_any_call_adds_nothing_and_goes_on_later():
    calls = LossyDisk()
    root = adds(calls).roots()
    for at in range(calls.calls):
        for seed in range(3):
            disk = LossyDisk(seed=seed, fail_at=at)
            with pytest.raises(Crash):
                adds(disk)
            disk.crash()
            goes_on(disk, root)


def goes_on(disk: LossyDisk, root: list[bytes]) -> None:
    """After a failure the data set is whole or not there, and adding it again makes it whole for good."""
    if disk.exists(AT / "format"):
        store = Store(AT, disk=disk, syncs=1)
        if store.roots():
            assert store.roots() == root
            assert verify(store, store.find("d")).whole
            return
    store = adds(disk)
    assert store.roots() == root
    assert unfinished(store) == {}
    disk.crash()
    store = Store(AT, disk=disk, syncs=1)
    assert verify(store, store.find("d")).whole


@pytest.mark.usefixtures("small_shards")
def test_a_repair_that_crashes_at_any_call_loses_nothing():
    source = adds(LossyDisk())
    manifest = source.find("d")
    lost = list(objects_of(source, manifest))[1::2]

    def mend(disk: LossyDisk) -> Store:
        store = Store(AT, disk=disk, syncs=1)
        repair(store, manifest, [source.objects])
        return store

    def damaged(seed: int = 0) -> LossyDisk:
        disk = LossyDisk(seed=seed)
        store = adds(disk)
        for number, name in enumerate(lost):
            disk.put(store.objects.path(name), b"bad") if number % 2 else disk.remove(
                store.objects.path(name)
            )
        disk.calls = 0
        return disk

    calls = damaged()
    mend(calls)
    for at in range(calls.calls):
        for error in (None, errno.ENOSPC):
            disk = damaged(at)
            disk.fail_at, disk.error = at, error
            with contextlib.suppress(Crash, StoreError):  # a rename into quarantine that fails ends nothing
                mend(disk)
            disk.crash()
            disk.fail_at, disk.error = -1, None
            assert verify(mend(disk), manifest).whole


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["file", "array"])
def test_memory_does_not_grow_with_the_data(tmp_path, kind):
    path = tmp_path / ("x.bin" if kind == "file" else "x.npy")
    if kind == "array":
        np.lib.format.open_memmap(path, "w+", np.float32, (1 << 18, 1024)).flush()
    with open(path, "ab") as file:
        file.truncate(1 << 30 if kind == "file" else path.stat().st_size)
    code = (
        "import re, sys\nfrom pydec.cli.main import main\n"
        f"status = main(['data', 'add', {str(path)!r}, '--name', 'd', '--store', {str(tmp_path / 's')!r}])\n"
        r"print(re.search(r'VmHWM:\s*(\d+) kB', open('/proc/self/status').read())[1]); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 256 << 10
