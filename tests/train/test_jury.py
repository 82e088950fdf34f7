"""Whoever dropped data that it owes loses its stake after stated challenges; honest holders never do.

Peers challenge one another in a simulated network that loses, delays and cuts; their reports go to the state
of a ledger, which takes stakes.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest

from pydec.consensus.roles import Role
from pydec.consensus.transactions import Dataset, Transfer
from pydec.errors import TransactionError
from pydec.store import adding
from pydec.store.adding import add
from pydec.store.challenges import SPACE_S, STRIKES, Challenges, Owed
from pydec.store.exchange import Exchange
from pydec.store.manifest import Manifest, Policy
from pydec.store.messages import Kind, Message
from pydec.store.store import Store
from pydec.store.upkeep import objects_of
from pydec.train.holding import Holding
from pydec.train.jury import LedgerJury
from tests.consensus.lossy_disk import LossyDisk
from tests.consensus.world import BOTH, World, account, genesis, key
from tests.store.test_exchange import store_of
from tests.store.test_upkeep import AT, CHUNK, Given

SIZE, STEP_S = 7, 0.25
NAMES = "abcdefg"
CONVICTED_S = 2 * STRIKES * SPACE_S
"""By then who dropped everything has lost its stake: a first challenger's strikes, then a quorum's."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(adding, "SHARD_BYTES", 2 * CHUNK)


class Weather:
    """Links that lose and delay, and are cut while ``cut`` says so; no order is kept between messages."""

    def __init__(self, seed: int, loss: float = 0.0, delay_s: float = 0.0) -> None:
        self.rng, self.loss, self.delay_s = random.Random(seed), loss, delay_s
        self.boxes: list[list[tuple[float, int, int, bytes]]] = [[] for _ in range(SIZE)]
        self.time_s, self.count = 0.0, 0
        self.cut: Callable[[int, int], bool] = lambda a, b: False
        self.late_s = [0.0] * SIZE  # of what a rank sends
        self.dead: set[int] = set()


class Link:
    def __init__(self, net: Weather, rank: int) -> None:
        self.net, self.rank, self.size = net, rank, SIZE

    def post(self, peer: int, data: bytes) -> None:
        net = self.net
        if net.rng.random() < net.loss or net.cut(self.rank, peer):
            return
        net.count += 1
        at_s = net.time_s + net.rng.uniform(0, net.delay_s) + net.late_s[self.rank]
        net.boxes[peer].append((at_s, net.count, self.rank, data))

    def poll(self) -> tuple[int, bytes] | None:
        box = self.net.boxes[self.rank]
        due = [item for item in box if item[0] < self.net.time_s]
        if not due:
            return None
        box.remove(first := min(due))
        return first[2:]

    def lost(self) -> frozenset[int]:
        return frozenset(self.net.dead)

    def now(self) -> float:
        return self.net.time_s


class Court:
    """The ledger: what is submitted is in the next block at once, if it is right."""

    def __init__(self, root: bytes, registered: bool = True) -> None:
        owner = BOTH | Role.DATA_OWNER
        self.world = World(genesis(*[account(n, owner if n == "a" else BOTH, balance=9) for n in NAMES]))
        self.taken: list[float] = []
        self.refused: deque[str] = deque()
        if registered:
            self.world.run("a", Dataset(root, "d", 3, 0, 0))

    def submit(self, data: bytes) -> None:
        try:
            self.world.add(data)
        except TransactionError as error:
            self.refused.append(str(error))

    @property
    def slashed(self) -> set[str]:
        return {name for name in NAMES if self.world.of(name).slashed}


class Peer:
    """What a rank of a job does beside training, as far as challenges go; honest."""

    def __init__(self, net: Weather, rank: int, source: Store, manifest: Manifest, court: Court) -> None:
        self.rank, self.link, self.store = rank, Link(net, rank), store_of()
        self.store.add_manifest(manifest)
        drawn = np.random.default_rng(net.rng.randrange(1 << 32))
        self.holding = Holding(self.store, manifest, range(SIZE), rank, [], drawn)
        indices = {shard.index for shard in manifest.shards}
        for name in objects_of(source, manifest):
            if name in indices or self.holding.mine(name):
                self.store.objects.adopt(name, source.objects.get(name))
        self.owed = [name for name in self.store.objects.names() if name not in indices]
        self.exchange = Exchange(self.link, self.store, self.holding.order, keeps=self.holding.mine)
        self.exchange.lacking = self.lacking
        nodes = [key(name).public for name in NAMES]
        self.jury = LedgerJury(
            rank, key(NAMES[rank]), nodes, manifest.root, lambda: court.world.state, court.submit
        )
        self.challenges = Challenges(
            self.exchange, self.link, self.store.objects, self.holding.draw, 1.0,
            random=net.rng.randbytes, jury=self.jury, owes=self.holding.owes,
        )  # fmt: skip

    def lacking(self, digest: bytes) -> None:
        if self.holding.mine(digest):
            self.exchange.want(digest)

    def drop(self, every: int = 1) -> None:
        for name in self.owed[::every]:
            self.store.objects.remove(name)

    def turn(self) -> None:
        self.exchange.turn()
        self.challenges.turn()


class Dropper(Peer):
    """Says that it has nothing, and gets nothing back."""

    def lacking(self, digest: bytes) -> None:
        pass


def town(
    net: Weather, kinds: dict[int, type[Peer]] | None = None, *, registered: bool = True
) -> tuple[Court, list[Peer]]:
    source = Store(AT, create=True, disk=LossyDisk(), syncs=1)
    manifest = add(source, Given(), "d", chunk_bytes=CHUNK, policy=Policy(replicas=3))
    court = Court(manifest.root, registered)
    kind = kinds or {}
    peers = [kind.get(rank, Peer)(net, rank, source, manifest, court) for rank in range(SIZE)]
    return court, peers


def live(net: Weather, peers: list[Peer], seconds: float, each: Callable[[], None] = lambda: None) -> None:
    until_s = net.time_s + seconds
    while net.time_s < until_s:
        net.time_s += STEP_S
        each()
        for peer in peers:
            if peer.rank not in net.dead:
                peer.turn()


@pytest.mark.parametrize("seed", range(5))
def test_honest_holders_lose_nothing_under_loss_delay_partitions_and_damage(seed):
    net = Weather(seed, loss=0.2, delay_s=5.0)
    court, peers = town(net)
    parts = [0] * SIZE
    net.cut = lambda a, b: parts[a] != parts[b]

    def fate() -> None:
        if net.rng.random() < STEP_S / 40:  # every 40 s the network falls into other parts, or heals
            parts[:] = [net.rng.randrange(3) if net.rng.random() < 0.4 else 0 for _ in parts]
        if net.rng.random() < STEP_S / 60:
            net.rng.choice(peers).drop(every=3)  # a disk that loses a third

    live(net, peers, 400.0, fate)
    assert court.slashed == set()
    assert sum(peer.challenges.proved for peer in peers) > 100
    assert sum(sum(peer.challenges.missed.values()) for peer in peers) > 0


@pytest.mark.parametrize("how", ["slow", "hung", "dead", "cut off"])
def test_who_is_slow_hung_dead_or_cut_off_loses_nothing(how):
    net = Weather(1, delay_s=0.5)
    court, peers = town(net)
    live(net, peers, 30.0)
    if how == "slow":
        net.late_s[2] = 75.0
    elif how == "dead":
        net.dead.add(2)
    elif how == "cut off":
        net.cut = lambda a, b: (a == 2) != (b == 2)
    acting = peers if how != "hung" else [peer for peer in peers if peer.rank != 2]
    live(net, acting, 400.0)
    net.cut, net.late_s[2] = (lambda a, b: False), 0.0
    live(net, peers, 200.0)
    assert court.slashed == set()
    assert all(not peer.challenges.missed[2] for peer in peers)
    if how not in ("dead", "hung"):
        assert any(peer.challenges.silent[2] for peer in peers)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("every", [1, 2])
def test_who_dropped_the_data_loses_its_stake_in_a_stated_number_of_challenges(seed, every):
    net = Weather(seed)
    court, peers = town(net, {3: Dropper})
    live(net, peers, 20.0)
    peers[3].drop(every)
    live(net, peers, CONVICTED_S)
    assert court.slashed == {NAMES[3]}
    assert court.world.of(NAMES[3]).stake == 0
    challengers = [peer for peer in peers if peer.challenges.missed[3] >= STRIKES]
    assert len(challengers) >= 5  # a quorum of seven
    assert {peer.rank for peer in peers if peer.rank != 3 and 3 in peer.jury.convicted()} == {
        0,
        1,
        2,
        4,
        5,
        6,
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_dropper_is_found_through_a_network_that_loses_and_honest_ones_are_not(seed):
    net = Weather(seed, loss=0.2, delay_s=2.0)
    court, peers = town(net, {3: Dropper})
    peers[3].drop(every=2)
    live(net, peers, 4 * CONVICTED_S)
    assert court.slashed == {NAMES[3]}


def test_a_minority_that_lies_takes_nothing():
    net = Weather(0)
    court, peers = town(net)
    liars, victim = peers[:4], 5

    def lie() -> None:
        for liar in liars:
            if net.rng.random() > 0.05:
                continue
            name = net.rng.choice(peers[victim].owed)
            owed = next(
                owed
                for shard in range(len(liar.holding._manifest.shards))
                if liar.holding.owes(owed := Owed(victim, name, shard))
            )
            share = liar.jury.sign(owed)
            for peer in range(SIZE):
                if share is not None and peer != liar.rank:
                    liar.exchange.tell(peer, Message(Kind.REPORT, victim, name, owed.shard, body=share))

    live(net, peers, 120.0, lie)
    assert court.slashed == set()
    assert all(peer.challenges.reported[victim] == 0 for peer in peers)
    assert all(not peer.challenges.missed for peer in peers)


def test_reports_about_different_objects_or_epochs_do_not_add_up():
    court, peers = town(Weather(0))
    name, other = peers[3].owed[:2]
    for rank, about in ((0, name), (1, name), (2, other), (4, other)):
        share = peers[rank].jury.sign(Owed(3, about, 0))
        assert peers[6].jury.hear(rank, Owed(3, about, 0), share)
    stale = peers[5].jury.sign(Owed(3, name, 0))
    assert not peers[6].jury.hear(5, Owed(3, other, 0), stale)
    assert not peers[6].jury.hear(5, Owed(3, name, 0), bytes(72))
    court.world.run("b", Transfer(key("a").public, 1))
    court.world.run("a", Dataset(b"x" * 32, "e", 1, 0, 0))
    assert court.slashed == set()
    assert not court.refused


def test_nobody_owes_data_that_is_not_registered():
    net = Weather(0)
    court, peers = town(net, {3: Dropper}, registered=False)
    peers[3].drop()
    live(net, peers, CONVICTED_S)
    assert court.slashed == set()
    assert any(peer.challenges.missed[3] for peer in peers)
