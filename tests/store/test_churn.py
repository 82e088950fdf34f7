"""Peers come and go, rot and are repaired, in a simulated network: nothing is lost while few enough go."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest

from pydec.errors import ChunkError, PeerTimeout
from pydec.store import adding, keeper
from pydec.store.adding import add
from pydec.store.exchange import Exchange
from pydec.store.inputs.base import Sample
from pydec.store.keeper import Keeper
from pydec.store.manifest import Manifest, Policy
from pydec.store.placement import Holder, Placement
from pydec.store.reading import Samples
from pydec.store.store import Store
from pydec.store.upkeep import objects_of, verify
from tests.consensus.lossy_disk import LossyDisk
from tests.store.test_exchange import store_of
from tests.store.test_upkeep import AT, CHUNK, Given

COPIES, CODED = Policy(replicas=3), Policy(replicas=4, parity=2)


class Network:
    """Links of many peers in one thread: messages arrive in order, one round after they were sent."""

    def __init__(self) -> None:
        self.boxes: dict[int, deque[tuple[int, bytes]]] = {}
        self.dead: set[int] = set()
        self.time_s = 0.0

    def link(self, rank: int) -> Link:
        self.boxes[rank] = deque()
        return Link(self, rank)


class Link:
    def __init__(self, net: Network, rank: int) -> None:
        self.net, self.rank = net, rank

    @property
    def size(self) -> int:
        return len(self.net.boxes)

    def post(self, peer: int, data: bytes) -> None:
        if len(self.net.boxes[peer]) > 500:
            raise PeerTimeout(peer, "takes nothing")
        self.net.boxes[peer].append((self.rank, data))

    def poll(self) -> tuple[int, bytes] | None:
        box = self.net.boxes[self.rank]
        return box.popleft() if box else None

    def lost(self) -> frozenset[int]:
        return frozenset(self.net.dead)

    def now(self) -> float:
        return self.net.time_s


class Shared(Placement):
    """Places that all peers of a view compute alike, computed once for all of them."""

    def __init__(self, view: list[Holder], replicas: int) -> None:
        super().__init__(view, replicas)
        self.known: dict[tuple[str, tuple[bytes, ...]], list] = {}

    def of_all(self, names):
        key = "all", tuple(names)
        if key not in self.known:
            self.known[key] = super().of_all(names)
        return self.known[key]

    def spread(self, names):
        key = "spread", tuple(names)
        if key not in self.known:
            self.known[key] = super().spread(names)
        return self.known[key]


def sharing() -> Callable[[list[Holder], int], Placement]:
    """In place of ``Placement`` for peers of one view, which else spend most time on the same places."""
    newest: list[tuple[tuple[bytes, ...], int, Shared]] = []

    def place(view: list[Holder], replicas: int) -> Placement:
        peers = tuple(holder.peer for holder in view)
        if not newest or newest[0][:2] != (peers, replicas):
            newest[:] = [(peers, replicas, Shared(view, replicas))]
        return newest[0][2]

    return place


class Peer:
    """A store, an exchange and a keeper that ask the holders of each object first."""

    def __init__(self, net: Network, rank: int, manifest: Manifest) -> None:
        self.rank, self.name = rank, b"peer %d" % rank
        self.link, self.store = net.link(rank), store_of()
        self.store.add_manifest(manifest)
        self.exchange = Exchange(self.link, self.store, self.first)
        self.keeper = Keeper(self.exchange, self.link, self.store, [manifest], self.name)
        self.before: Placement | None = None

    def first(self, digest: bytes) -> list[int]:
        return [int(h.peer[5:]) for h in self.before.of(digest)] if self.before else []


def settle(net: Network, peers: list[Peer], rounds: int = 3000) -> int:
    for count in range(rounds):
        net.time_s += 0.01
        moved = [peer.keeper.turn() | peer.exchange.turn() for peer in peers]
        if all(peer.keeper.done for peer in peers) and not any(moved):
            return count
    raise AssertionError("peers that never come to rest")


def held_by(place: Placement, source: Store, manifest: Manifest) -> list[dict[bytes, list[bytes]]]:
    """For each chunk its objects, and who has to hold each of them."""
    found = []
    for number in range(len(manifest.shards)):
        index = source.layout(manifest, number).index
        found += [
            {name: [h.peer] for name, h in zip(names, place.spread(names), strict=True)}
            for names in index.fragment_names
        ]
        if index.fragments is None:
            found += [{name: [h.peer for h in place.of(name)]} for name in index.names]
    return found


class Many(Given):
    """So many samples."""

    def __init__(self, count: int) -> None:
        self.count = count

    def blocks(self, start):
        for number in range(start, self.count):
            yield Sample((b"%d" % number, number.to_bytes(2, "big") * 1500))


def churn(
    count: int,
    rounds: int,
    seed: int,
    share: float = 0.05,
    policy: Policy = COPIES,
    samples: int = 6,
    kind: type[Peer] = Peer,
) -> list[Peer]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(keeper, "Placement", sharing())
        return _churn(count, rounds, seed, share, policy, samples, kind)


def _churn(
    count: int, rounds: int, seed: int, share: float, policy: Policy, samples: int, kind: type[Peer]
) -> list[Peer]:
    rng, net = random.Random(seed), Network()
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    chunk_bytes = 6 * CHUNK if policy.parity else CHUNK
    manifest = add(source, Many(samples), "d", chunk_bytes=chunk_bytes, policy=policy)
    peers = [kind(net, rank, manifest) for rank in range(count)]
    for name in objects_of(source, manifest):
        peers[0].store.objects.adopt(name, source.objects.get(name))
    old: Placement | None = None
    for number in range(rounds):
        view = [Holder(peer.name, f"node {peer.rank // 2}", 1 + peer.rank % 3) for peer in peers]
        new = Placement(view, policy.fragments)
        for peer in peers:
            peer.before = old
            peer.keeper.enter(view)
        settle(net, peers)
        chunks, named = held_by(new, source, manifest), {peer.name: peer for peer in peers}
        for chunk in chunks:
            for name, holders in chunk.items():
                assert all(named[holder].store.objects.has(name) for holder in holders)
        assert all(peer.keeper.standing.missing_bytes == 0 for peer in peers)
        if number == rounds - 1:
            break
        while True:  # as many as may die: never all holders of an object
            dead = set(rng.sample(range(len(peers)), max(1, int(share * len(peers)))))
            names = {peers[n].name for n in dead}
            gone = [sum(names.issuperset(holders) for holders in chunk.values()) for chunk in chunks]
            if max(gone) <= policy.parity:
                break
        net.dead |= {peers[n].rank for n in dead}
        peers = [peer for n, peer in enumerate(peers) if n not in dead]
        peers += [kind(net, len(net.boxes), manifest) for _ in dead]
        old = new
    last = peers[rng.randrange(len(peers))]
    for name in objects_of(source, manifest):
        while not last.store.objects.has(name):
            request = last.exchange.want(name)
            while not request.done:
                net.time_s += 0.01
                for peer in peers:
                    peer.exchange.turn()
            if request.data is None:
                assert policy.parity
                break
    report = verify(last.store, manifest)
    assert not report.lost
    assert report.whole or policy.parity
    return peers


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_while_peers_come_and_go(seed):
    churn(16, 6, seed, share=0.12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_lost_while_a_twentieth_of_1000_peers_goes_each_round():
    churn(1000, 4, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost_of_100_chunks_while_a_twentieth_of_1000_peers_goes_in_each_of_11_rounds():
    churn(1000, 11, 0, samples=100)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("seed", range(3))
def test_fragments_of_peers_that_go_are_made_again(seed):
    peers = churn(16, 5, seed, share=0.12, policy=CODED)
    assert sum(peer.keeper.remade for peer in peers) > 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("small_shards")
def test_no_chunk_is_lost_while_a_twentieth_of_1000_holders_of_fragments_goes_each_round():
    churn(1000, 4, 0, policy=CODED)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("dead", [2, 3])
def test_as_many_holders_as_parity_may_go_at_once_and_not_one_more(dead):
    net, source = Network(), Store(AT, create=True, disk=LossyDisk(), syncs=1)
    manifest = add(source, Given(), "d", chunk_bytes=6 * CHUNK, policy=CODED)
    peers = [Peer(net, rank, manifest) for rank in range(6)]
    place = Placement([Holder(peer.name, peer.name.decode()) for peer in peers], 6)
    named = {peer.name: peer for peer in peers}
    for shard in manifest.shards:
        for peer in peers:
            peer.store.objects.adopt(shard.index, source.objects.get(shard.index))
    for chunk in held_by(place, source, manifest):
        for name, holders in chunk.items():
            named[holders[0]].store.objects.adopt(name, source.objects.get(name))
    net.dead = set(range(dead))
    left = peers[dead:]
    for peer in left:
        peer.before = place
        peer.keeper.enter([Holder(peer.name, peer.name.decode()) for peer in left])
    settle(net, left)
    lost = sum(peer.keeper.standing.lost for peer in left)
    if dead == 2:
        assert lost == 0
        assert sum(peer.keeper.remade for peer in left) > 0
        for peer in left:
            assert not verify(peer.store, manifest).damaged
        return
    assert lost > 0

    class Together:
        """What the peers that are left have."""

        def get(self, digest: bytes) -> bytes:
            for peer in left:
                if peer.store.objects.has(digest):
                    return peer.store.objects.get(digest)
            raise ChunkError(digest, True, "gone")

    with pytest.raises(ChunkError, match="is lost: 3 of its 6 fragments are to be had, and 4 are needed"):
        Samples(manifest, Together()).raw(0)


@pytest.mark.usefixtures("small_shards")
def test_what_rots_is_found_by_scrubbing_and_comes_back():
    net = Network()
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    manifest = add(source, Given(), "d", chunk_bytes=CHUNK)
    peers = [Peer(net, rank, manifest) for rank in range(2)]
    for name in objects_of(source, manifest):
        for peer in peers:
            peer.store.objects.adopt(name, source.objects.get(name))
    rotten = peers[1]
    rotten.keeper = Keeper(
        rotten.exchange, rotten.link, rotten.store, [manifest], rotten.name, scrub_bytes_per_s=2000.0
    )
    for peer in peers:
        peer.keeper.enter([Holder(peer.name, peer.name.decode()) for peer in peers])
    settle(net, peers)
    victims = list(objects_of(source, manifest))[::3]
    for name in victims:
        file = rotten.store.disk.files[rotten.store.objects.path(name)]
        file.seen[-1] ^= 1
    began_s, n_bytes = net.time_s, manifest.head.n_bytes
    while rotten.keeper.damaged < len(victims) or not rotten.keeper.done:
        net.time_s += 0.05
        for peer in peers:
            peer.keeper.turn()
            peer.exchange.turn()
        assert net.time_s < began_s + 3 * n_bytes / 2000.0
    assert verify(rotten.store, manifest).whole
    assert rotten.keeper.damaged == len(victims)
    assert peers[0].keeper.scrubbed == 0
    assert rotten.keeper.standing.missing_bytes == 0


@pytest.mark.usefixtures("small_shards")
def test_repair_keeps_to_its_bandwidth():
    net = Network()
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    manifest = add(source, Given(), "d", chunk_bytes=CHUNK)
    giver, taker = Peer(net, 0, manifest), Peer(net, 1, manifest)
    for name in objects_of(source, manifest):
        giver.store.objects.adopt(name, source.objects.get(name))
    taker.keeper = Keeper(taker.exchange, taker.link, taker.store, [manifest], taker.name, bytes_per_s=1000.0)
    taker.keeper.enter([Holder(taker.name, "a"), Holder(giver.name, "b")])
    while not taker.keeper.done:
        net.time_s += 0.1
        for peer in (giver, taker):
            peer.exchange.turn()
        taker.keeper.turn()
        assert taker.keeper.fetched_bytes <= 1000 * net.time_s + 4 * CHUNK
        assert taker.keeper.standing.seconds <= manifest.head.n_bytes / 1000
    assert verify(taker.store, manifest).whole
    assert net.time_s >= manifest.head.n_bytes / 1000 - 5
