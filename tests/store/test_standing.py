"""Every peer knows how far all hold a data set, and writes it down for whoever asks later."""

from __future__ import annotations

import json
import os

import pytest

from pydec.cli.main import main
from pydec.disk import DISK
from pydec.errors import FrameError
from pydec.store import adding, standing
from pydec.store.adding import add
from pydec.store.keeper import Keeper
from pydec.store.manifest import Manifest, Policy
from pydec.store.placement import Holder
from pydec.store.standing import TELL_S, Standings, Tally, read
from pydec.store.store import Store
from pydec.store.upkeep import objects_of
from tests.consensus.lossy_disk import LossyDisk
from tests.store.test_churn import Network, Peer
from tests.store.test_upkeep import AT, CHUNK, Given

RATE = 1000.0


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)


def town(where: Store, count: int = 3) -> tuple[Network, list[Peer], list[Standings], Manifest, Store]:
    """Peers that are all to hold everything, of which the first has it; that one writes into ``where``."""
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    manifest = add(source, Given(), "d", chunk_bytes=CHUNK, policy=Policy(replicas=count))
    net = Network()
    peers = [Peer(net, rank, manifest) for rank in range(count)]
    for name in objects_of(source, manifest):
        peers[0].store.objects.adopt(name, source.objects.get(name))
    all_ = []
    for peer in peers:
        peer.keeper = Keeper(peer.exchange, peer.link, peer.store, [manifest], peer.name, bytes_per_s=RATE)
        store = where if peer.rank == 0 else peer.store
        all_.append(Standings(peer.exchange, peer.link, peer.keeper, store, manifest, RATE))
    where.add_manifest(manifest)
    view = [Holder(peer.name, f"node {peer.rank}") for peer in peers]
    for peer in peers:
        peer.keeper.enter(view)
    return net, peers, all_, manifest, source


def live(net: Network, peers: list[Peer], all_: list[Standings], seconds: float) -> None:
    until_s = net.time_s + seconds
    while net.time_s < until_s:
        net.time_s += 0.05
        for peer in peers:
            if peer.rank not in net.dead:
                peer.keeper.turn()
                peer.exchange.turn()
                all_[peer.rank].turn()


def test_what_is_missing_anywhere_is_known_while_it_is_repaired(store, capsys):
    net, peers, all_, manifest, _ = town(store)
    live(net, peers, all_, 2 * TELL_S + 1)
    now = read(store, manifest)
    assert now is not None
    total = manifest.head.n_bytes
    assert 0 < now["under_replicated_bytes"] < 2 * total
    assert now["repair_s"] == pytest.approx(now["under_replicated_bytes"] / 2 / RATE, rel=0.5)
    assert 1 < now["replicas_mean"] < 3
    assert (now["replicas_wanted"], now["replicas_least"], now["unknown"]) == (3, 1, [])
    assert now["running"]
    live(net, peers, all_, total / RATE + 3 * TELL_S)
    now = read(store, manifest)
    assert now is not None
    assert (now["replicas_mean"], now["replicas_least"], now["complete"]) == (3.0, 3, True)
    assert (now["under_replicated_bytes"], now["repair_s"], now["lost_objects"]) == (0, 0, 0)
    assert main(["data", "status", "d", "--store", str(store.directory)]) == 0
    assert "3 of 3 replicas on 3 peers (the job runs, " in capsys.readouterr().out


def test_who_is_dead_or_has_said_nothing_is_named(store, capsys):
    net, peers, all_, _, _ = town(store)
    net.dead.add(2)
    live(net, peers[:1], all_, TELL_S + 1)
    assert main(["data", "status", "--json", "--store", str(store.directory)]) == 0
    peers_of = json.loads(capsys.readouterr().out)["data"][0]["peers"]
    assert (peers_of["gone"], peers_of["unknown"], peers_of["complete"]) == ([2], [1], False)
    assert peers_of["replicas_least"] <= 1


def test_objects_that_nobody_gives_are_counted(store):
    net, peers, all_, manifest, _ = town(store)
    name = list(objects_of(peers[0].store, manifest))[1]
    peers[0].store.objects.remove(name)
    live(net, peers, all_, manifest.head.n_bytes / RATE + 3 * TELL_S)
    now = read(store, manifest)
    assert now is not None
    assert now["lost_objects"] == 3
    assert now["replicas_least"] == 0


def test_a_job_that_has_ended_and_a_file_that_is_damaged_are_told_apart(store, monkeypatch):
    net, peers, all_, manifest, _ = town(store)
    assert read(store, manifest) is None
    live(net, peers, all_, 1.0)
    monkeypatch.setattr(standing, "_lives", lambda pid: pid != os.getpid())
    now = read(store, manifest)
    assert now is not None
    assert not now["running"]
    (store.directory / "standing" / manifest.root.hex()).write_bytes(b"{")
    assert read(store, manifest) is None
    with store.lock():
        store.forget(manifest.root)
    assert not list((store.directory / "standing").iterdir())


def test_a_disk_that_takes_no_file_stops_nobody(store, monkeypatch):
    net, peers, all_, manifest, _ = town(store)

    def full(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(DISK, "sync", full, raising=False)
    live(net, peers[:1], all_, 1.0)
    assert read(store, manifest) is None


@pytest.mark.parametrize(
    "data", [b"", bytes(32), bytes([0, 0, 0, 0, 0, 0, 0, 0, 1, *bytes(24)]), bytes(32) + b"\2"]
)
def test_other_bytes_are_no_tally(data):
    with pytest.raises(FrameError):
        Tally.decode(data)


def test_a_tally_comes_back():
    tally = Tally(5, 3, 1 << 40, 2, 1)
    assert Tally.decode(tally.encode()) == tally
