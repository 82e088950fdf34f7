"""A peer lets go of what it no longer owes only after all who owe it have proved that they hold it."""

from __future__ import annotations

import random

import pytest

from pydec.store import adding
from pydec.store.adding import add
from pydec.store.dropping import RETRY_S, Dropper
from pydec.store.keeper import Keeper
from pydec.store.manifest import Manifest, Policy
from pydec.store.placement import Holder, Placement
from pydec.store.store import Store
from pydec.store.upkeep import objects_of
from tests.consensus.lossy_disk import LossyDisk
from tests.store.test_churn import Network, Peer, churn
from tests.store.test_upkeep import AT, CHUNK, Given


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)


def added(replicas: int = 2) -> tuple[Store, Manifest]:
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    return source, add(source, Given(), "d", chunk_bytes=CHUNK, policy=Policy(replicas=replicas))


class Letting(Peer):
    """A peer that lets go of what it does not owe."""

    def __init__(self, net: Network, rank: int, manifest: Manifest) -> None:
        super().__init__(net, rank, manifest)
        self.dropper = Dropper(self.exchange, self.link, self.store, [manifest.root])
        self.keeper = Keeper(
            self.exchange, self.link, self.store, [manifest], self.name, dropper=self.dropper,
            rank_of=lambda peer: int(peer[5:]),
        )  # fmt: skip

    def take(self, source: Store, names: list[bytes]) -> None:
        for name in names:
            self.store.objects.adopt(name, source.objects.get(name))


def holder(peer: Peer) -> Holder:
    return Holder(peer.name, f"node {peer.rank}")


def turn(net: Network, peers: list[Peer], seconds: float = 0.01) -> None:
    net.time_s += seconds
    for peer in peers:
        peer.keeper.turn()
        peer.exchange.turn()


def rest(net: Network, peers: list[Letting]) -> None:
    for _ in range(5000):
        turn(net, peers, 0.05)
        if all(peer.keeper.done and peer.dropper.done for peer in peers):
            return
    raise AssertionError("peers that never come to rest")


def chunks_of(source: Store, manifest: Manifest) -> list[bytes]:
    indices = {shard.index for shard in manifest.shards}
    return [name for name in objects_of(source, manifest) if name not in indices]


def exact(peers: list[Letting], chunks: list[bytes], replicas: int = 2) -> None:
    placement = Placement([holder(peer) for peer in peers], replicas)
    for name in chunks:
        assert {h.peer for h in placement.of(name)} == {p.name for p in peers if p.store.objects.has(name)}


def test_after_a_change_each_object_is_with_its_holders_alone():
    source, manifest = added()
    net, chunks = Network(), chunks_of(source, manifest)
    peers = [Letting(net, rank, manifest) for rank in range(6)]
    for peer in peers[:3]:
        peer.take(source, list(objects_of(source, manifest)))
    for count in (4, 6, 3):
        for peer in peers[:count]:
            peer.keeper.enter([holder(other) for other in peers[:count]])
        rest(net, peers)  # who leaves still gives
        exact(peers[:count], chunks)
        for peer in peers[:count]:
            assert all(peer.store.objects.has(shard.index) for shard in manifest.shards)
            assert peer.exchange.withheld == set()
    assert sum(peer.dropper.dropped for peer in peers) > 0


def test_who_has_not_got_it_yet_is_asked_again_and_who_lies_is_not_believed():
    source, manifest = added()
    net = Network()
    giver, slow, liar = (Letting(net, rank, manifest) for rank in range(3))
    giver.take(source, list(objects_of(source, manifest)))
    view = [Holder(giver.name, "a", 0), holder(slow), holder(liar)]
    giver.keeper.enter(view)
    for _ in range(20):
        turn(net, [giver, slow])  # which holds nothing; the liar says nothing
    chunks = chunks_of(source, manifest)
    assert all(giver.store.objects.has(name) for name in chunks)
    for peer in (slow, liar):
        peer.take(source, chunks)

    def wrong(digest: bytes, *, again: bool = True) -> bytes:
        return b"x" * 3001

    true, liar.store.objects.get = liar.store.objects.get, wrong  # type: ignore[method-assign]
    for _ in range(20):
        turn(net, [giver, slow, liar], RETRY_S)
    assert all(giver.store.objects.has(name) for name in chunks)
    assert giver.dropper.unproved >= 2 * len(chunks)
    liar.store.objects.get = true  # type: ignore[method-assign]
    for _ in range(20):
        turn(net, [giver, slow, liar], RETRY_S)
    assert not any(giver.store.objects.has(name) for name in chunks)
    assert giver.dropper.done


def test_what_another_data_set_needs_stays_and_nothing_goes_while_data_is_added():
    source, manifest = added()
    net = Network()
    giver, other = Letting(net, 0, manifest), Letting(net, 1, manifest)
    for peer in (giver, other):
        peer.take(source, list(objects_of(source, manifest)))
    chunks = chunks_of(source, manifest)

    class Part(Given):
        """The first samples of the same data."""

        def blocks(self, start: int):
            yield from list(super().blocks(start))[:2]

    part = add(giver.store, Part(), "part", chunk_bytes=CHUNK)
    shared = [name for name in chunks_of(giver.store, part) if name in chunks]
    assert shared
    with giver.store.lock():
        giver.keeper.enter([Holder(giver.name, "a", 0), holder(other)])
        for _ in range(20):
            turn(net, [giver, other])
        assert all(giver.store.objects.has(name) for name in chunks)
    for _ in range(20):
        turn(net, [giver, other], RETRY_S)
    assert [name for name in chunks if giver.store.objects.has(name)] == shared


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_lost_when_peers_are_in_different_views(seed):
    """Peers change views one by one, at any time: whatever they let go of, somebody holds it."""
    rng = random.Random(seed)
    source, manifest = added(replicas=1 + seed % 2)
    net, chunks = Network(), chunks_of(source, manifest)
    peers = [Letting(net, rank, manifest) for rank in range(5)]
    for peer in peers:
        peer.take(source, list(objects_of(source, manifest)))
    views = [rng.sample(peers, rng.randrange(1, 6)) for _ in range(6)]
    for step in range(600):
        if step % 5 == 0:
            rng.choice(peers).keeper.enter([holder(peer) for peer in rng.choice(views)])
        net.time_s += rng.choice((0.01, RETRY_S))
        peer = rng.choice(peers)
        peer.keeper.turn()
        if rng.random() < 0.7:
            rng.choice(peers).exchange.turn()
        for name in chunks:
            assert any(other.store.objects.has(name) for other in peers)
    assert any(peer.dropper.dropped for peer in peers)
    for peer in peers:
        peer.keeper.enter([holder(other) for other in peers])
    rest(net, peers)
    exact(peers, chunks, manifest.head.policy.replicas)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_while_peers_come_and_go_and_keep_what_they_owe_alone(seed):
    peers = churn(16, 6, seed, share=0.12, samples=12, kind=Letting)
    assert sum(peer.dropper.dropped for peer in peers) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_by_1000_peers_that_keep_what_they_owe_alone_while_a_twentieth_goes_each_round(
    monkeypatch,
):
    monkeypatch.setattr(adding, "SHARD_BYTES", 1 << 26)
    peers = churn(1000, 4, 0, samples=12, kind=Letting)
    assert sum(peer.dropper.dropped for peer in peers) > 0


def test_an_object_that_came_after_the_view_is_not_kept_if_it_is_not_owed():
    source, manifest = added(replicas=1)
    net = Network()
    giver, reader = Letting(net, 0, manifest), Letting(net, 1, manifest)
    giver.take(source, list(objects_of(source, manifest)))
    name = chunks_of(source, manifest)[0]
    reader.exchange._keeps = lambda digest: digest != name
    request = reader.exchange.want(name)
    while not request.done:
        turn(net, [giver, reader])
    assert request.data == source.objects.get(name)
    assert not reader.store.objects.has(name)
