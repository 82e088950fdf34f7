"""What the store must bear: full disks, crashes at every write, samples of any size, other versions."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from pydec.errors import StoreError
from pydec.store import adding
from pydec.store.adding import add
from pydec.store.export import export
from pydec.store.inputs import open_input
from pydec.store.keeper import RETRY_S, Keeper
from pydec.store.manifest import CHUNK_BYTES, Manifest, Policy
from pydec.store.messages import Kind
from pydec.store.objects import MOST_BYTES
from pydec.store.placement import Holder
from pydec.store.reading import Samples
from pydec.store.shard import Index
from pydec.store.store import Store
from pydec.store.upkeep import objects_of, verify
from tests.consensus.lossy_disk import Crash, LossyDisk
from tests.store.cases import CHUNK, values, write
from tests.store.test_churn import Network, Peer
from tests.store.test_upkeep import AT, Given


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)


def pair(disk: LossyDisk) -> tuple[Network, Peer, Peer, Manifest]:
    """A peer that has a data set, and one with this disk that has to hold it."""
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    manifest = add(source, Given(), "d", chunk_bytes=CHUNK, policy=Policy(replicas=2))
    net = Network()
    giver, taker = Peer(net, 0, manifest), Peer(net, 1, manifest)
    for name in objects_of(source, manifest):
        giver.store.objects.adopt(name, source.objects.get(name))
    store = Store(AT, create=not disk.exists(AT / "format"), disk=disk, syncs=1)
    taker.store, taker.exchange._store = store, store
    if manifest.root not in store.roots():
        store.add_manifest(manifest)
    taker.keeper = Keeper(taker.exchange, taker.link, store, [manifest], taker.name)
    taker.keeper.enter([Holder(peer.name, peer.name.decode()) for peer in (giver, taker)])
    return net, giver, taker, manifest


def live(net: Network, giver: Peer, taker: Peer, seconds: float) -> None:
    until_s = net.time_s + seconds
    while net.time_s < until_s:
        net.time_s += 0.05
        taker.keeper.turn()
        taker.exchange.turn()
        giver.exchange.turn()


class Small(LossyDisk):
    """A disk that takes no more objects while it is full."""

    full = False

    def write_new(self, path, data):
        if self.full:
            raise OSError(errno.ENOSPC, "no space left on device")
        return super().write_new(path, data)


@pytest.mark.usefixtures("small_shards")
def test_a_replica_whose_disk_is_full_says_what_it_lacks_and_goes_on_when_there_is_room():
    disk = Small()
    net, giver, taker, manifest = pair(disk)
    disk.full = True
    live(net, giver, taker, 10.0)
    standing = taker.keeper.standing
    assert standing.here < standing.owed
    assert standing.lost > 0
    assert standing.missing_bytes > 0
    assert taker.exchange.counts["unkept"] > 0
    assert verify(giver.store, manifest).whole  # the others lose nothing
    disk.full = False
    live(net, giver, taker, 2 * RETRY_S)
    assert taker.keeper.standing.missing_bytes == 0
    assert verify(taker.store, manifest).whole


@pytest.mark.usefixtures("small_shards")
def test_a_repair_from_peers_that_crashes_at_any_write_shows_nothing_half_and_goes_on():
    calls = LossyDisk()
    net, giver, taker, manifest = pair(calls)
    calls.calls = 0
    live(net, giver, taker, 5.0)
    assert taker.keeper.standing.missing_bytes == 0
    assert calls.calls > 20
    for at in range(calls.calls):
        disk = LossyDisk(seed=at)
        net, giver, taker, manifest = pair(disk)
        disk.calls, disk.fail_at = 0, at
        with pytest.raises(Crash):
            live(net, giver, taker, 5.0)
        disk.crash()
        found = verify(Store(AT, disk=disk, syncs=1), manifest)
        if disk.exists(AT / "manifests" / manifest.root.hex()):
            net, giver, taker, manifest = pair(disk)
            live(net, giver, taker, 5.0)
            assert verify(taker.store, manifest).whole
            assert len(found.damaged) <= 1


def test_a_manifest_of_another_version_from_a_peer_is_none(monkeypatch):
    net, giver, taker, manifest = pair(LossyDisk())
    later = bytearray(manifest.encode())
    at = next(n for n in range(16) if _refused(later, n))
    later[at] ^= 0x7F
    found = giver.exchange._found
    monkeypatch.setattr(
        giver.exchange, "_found", lambda m: bytes(later) if m.kind is Kind.MANIFEST else found(m)
    )
    request = taker.exchange.want(manifest.root, Kind.MANIFEST)
    live(net, giver, taker, 2.0)
    assert request.done
    assert request.data is None
    assert taker.exchange.counts["bad"] == 1


def _refused(data: bytearray, at: int) -> bool:
    other = bytearray(data)
    other[at] ^= 0x7F
    try:
        return Manifest.decode(bytes(other)).root != Manifest.decode(bytes(data)).root
    except Exception:
        return True


def test_the_index_of_a_sample_of_100_gb_is_an_object():
    chunks = -(-(100 * 10**9) // CHUNK_BYTES)
    names = np.random.default_rng(0).integers(0, 256, (chunks, 32), np.uint8)
    sizes = np.full(chunks, CHUNK_BYTES)
    index = Index(names, sizes, np.array([[sizes.sum()]]))
    data = index.encode()
    assert len(data) <= MOST_BYTES
    assert int(Index.decode(data).lengths.sum()) == sizes.sum() >= 100 * 10**9


def test_a_sample_of_one_byte_is_one(store, tmp_path):
    folder = write(tmp_path / "in", {b"one": b"1"})
    samples = Samples(add(store, open_input(str(folder)), "d"), store.objects)
    assert bytes(samples.raw(0)[1]) == b"1"
    assert verify(store, samples.manifest).whole


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_sample_of_100_gb_is_added_verified_and_read(store, tmp_path):
    size = 100 * 10**9
    path = tmp_path / "huge"
    with open(path, "wb") as file:
        file.truncate(size)
        for at in (0, size // 2, size - 5):
            os.pwrite(file.fileno(), b"here!", at)
    manifest = add(store, open_input(str(path)), "d")
    assert manifest.head.n_bytes >= size
    assert verify(store, manifest).whole
    samples = Samples(manifest, store.objects)
    seen = at = 0
    for piece in samples.pieces(0, 1):
        seen += bytes(piece).count(b"here!")
        at += len(piece)
    assert (at, seen) == (size, 3)


def test_an_export_of_odd_names_is_the_folder_again(store, tmp_path):
    files = {b"\xff\xfe": b"1", b"a\nb": b"2", b"-rf": b"3", b"caf\xe9/\x01": b"4", b" ": b"", b"%s{}": b"5"}
    folder = write(tmp_path / "in", files)
    samples = Samples(add(store, open_input(str(folder)), "d"), store.objects)
    assert {row[0]: row[1] for row in values(samples)} == files
    export(samples, tmp_path / "out")
    found = {
        os.path.relpath(os.path.join(at, name), os.fsencode(tmp_path / "out")): None
        for at, _, names in os.walk(os.fsencode(tmp_path / "out"))
        for name in names
    }
    assert set(found) == set(files)


def test_a_file_that_nobody_may_read_is_named_and_nothing_is_added(store, tmp_path, monkeypatch):
    folder = write(tmp_path / "in", {b"a": b"1", b"secret": b"2"})
    real = os.open

    def denied(path, *args, **options):
        if os.fsencode(path).endswith(b"secret"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", denied)
    monkeypatch.setattr("builtins.open", _opening(open, denied))
    with pytest.raises(StoreError, match="secret"):
        add(store, open_input(str(folder)), "d")
    assert store.roots() == []


def _opening(real, denied):
    def opened(path, *args, **options):
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsencode(path).endswith(b"secret"):
            return denied(path)
        return real(path, *args, **options)

    return opened
