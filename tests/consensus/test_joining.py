"""Joining by a snapshot, with real replicas, keys and files: who lies is named, and a crash loses nothing."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from functools import partial

import pytest

from pydec.consensus import handover, newcomer, offers
from pydec.consensus.light import LightClient
from pydec.consensus.messages import Decision, decode
from pydec.consensus.transactions import Beacon, Stake
from pydec.errors import LedgerError
from tests.consensus.cluster import Cluster, Node
from tests.consensus.lossy_disk import Crash
from tests.consensus.world import genesis, key

SPACING = 4


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Snapshots every few heights, and small pieces: many of them."""
    monkeypatch.setattr(handover, "SPACING", SPACING)
    monkeypatch.setattr(newcomer, "FAR", 2 * SPACING)
    monkeypatch.setattr("pydec.consensus.state.streams.PIECE_BYTES", 256)


def grow(cluster: Cluster, height: int, names: str = "abcd") -> None:
    """Go on to a height that these nodes have; every third block begins an epoch."""
    nodes = [cluster.nodes[name] for name in names]
    while (top := max(node.state.height for node in nodes)) < height:
        speaker = "abcd"[top % 4]
        reached = cluster.nodes[speaker].state.accounts[key(speaker).public].round
        cluster.submit(speaker, Stake(0, 1) if top % 3 == 2 else Beacon(reached + 1))
        cluster.settle(top + 1, names)


def late(seed: int = 0, height: int = 13, names: str = "abcde") -> Cluster:
    """A cluster whose nodes after the fourth have not been started."""
    cluster = Cluster(genesis(), names, seed)
    for name in names[4:]:
        cluster.crash(name)
    grow(cluster, height)
    return cluster


def old(data: bytes, until: int = 12) -> bool:
    """Whether it is a block from before the snapshot: as if the chain were long, they take their time."""
    if data[0] == offers.OFFER or data[1] != Decision.TYPE:
        return False
    return decision(data).height <= until


def decision(data: bytes) -> Decision:
    message = decode(data, genesis().chain_id)
    assert isinstance(message, Decision)
    return message


def slowly(tell, until: int = 12):
    """What a network carries on which all old blocks are lost, and some messages are lies."""
    return lambda sender, target, data: None if old(data, until) else tell(sender, target, data)


def truly(sender: Node, target: Node, data: bytes) -> bytes:
    return data


def joined(cluster: Cluster, name: str, height: int) -> Node:
    """Start a node and wait until it is level."""
    node = cluster.nodes[name]
    cluster.boot(node)
    cluster.run(lambda: node.replica is not None and node.state.height >= height)
    return node


def test_a_newcomer_goes_on_from_a_snapshot_and_serves_the_next_one():
    cluster = late(names="abcdef")
    cluster.outgoing = slowly(truly)
    node = joined(cluster, "e", 13)
    assert node.files.base.height == 12
    assert node.files.record(12) is None
    assert node.files.epochs == node.state.table.epoch == 4
    grow(cluster, 15, "abcde")
    cluster.crash("e")
    assert joined(cluster, "e", 15).files.base.height == 12
    grow(cluster, 17, "abcde")
    asked = []

    def only_e(sender: Node, target: Node, data: bytes) -> bytes | None:
        if data[0] == offers.OFFER and target.name == "f":
            asked.append(sender.name)
        return None if data[0] == offers.OFFER and "e" not in (sender.name, target.name) else data

    cluster.outgoing = slowly(only_e)
    last = joined(cluster, "f", 17)
    assert last.files.base.height == 16
    assert set(asked) == {"e"}
    cluster.audit()
    assert not any(node.reports for node in cluster.nodes.values())


def altered(kind: type, change):
    """Messages of a type as a liar would send them."""

    def lie(data: bytes) -> bytes:
        if data[0] != offers.OFFER:
            return data
        message = offers.decode(data, genesis().chain_id)
        return offers.encode(change(message), genesis().chain_id) if isinstance(message, kind) else data

    return lie


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def of_other_state(offer: offers.Offer) -> offers.Offer:
    parts = ((bytes(32),), *offer.manifest.parts[1:])
    return replace(offer, manifest=offers.Manifest(parts))


def uncertified(offer: offers.Offer) -> offers.Offer:
    commit = offer.proof.commit
    bad = replace(commit, signatures=(bytes(64), *commit.signatures[1:]))
    return replace(offer, proof=replace(offer.proof, commit=bad))


LIES = {
    "a piece": (
        altered(offers.Piece, lambda m: replace(m, data=flipped(m.data))),
        r"piece \d+ is not the one",
    ),
    "a number": (altered(offers.Piece, lambda m: replace(m, number=10**6)), "piece 1000000 is not"),
    "the digests": (altered(offers.Offer, of_other_state), "the digests are not those"),
    "the certificate": (altered(offers.Offer, uncertified), r"signer \d did not sign it"),
    "a step": (altered(offers.Step, lambda m: replace(m, data=flipped(m.data))), "the table is not the one"),
    "no message": (lambda data: data[:1] if data[0] == offers.OFFER else data, "ends after 1 bytes"),
}


def lied_to(lie: str) -> None:
    """A newcomer among three liars, who alone are accused, and of what they did."""
    tell, message = LIES[lie]
    cluster = late()
    liars = {key(name).public: name for name in "abc"}
    cluster.outgoing = slowly(
        lambda sender, target, data: tell(data) if sender.name in liars.values() else data
    )
    node = joined(cluster, "e", 13)
    assert node.files.base.height == 12
    assert node.accused
    assert all(sender in liars for sender, _ in node.accused)
    assert all(re.search(message, reason) for _, reason in node.accused)
    cluster.audit()


@pytest.mark.parametrize("lie", LIES)
def test_who_serves_something_wrong_is_named_and_another_is_asked(lie):
    lied_to(lie)


MUTANTS = {
    "believes certificates": (
        "the certificate",
        lambda patch: patch.setattr(LightClient, "certify", lambda self, h, c: self._accept(h, self.table)),
    ),
    "believes digests": (
        "the digests",
        lambda patch: patch.setattr(newcomer.Newcomer, "_rooted", lambda self, offer: True),
    ),
    "believes steps": (
        "a step",
        lambda patch: patch.setattr(
            LightClient, "follow", lambda self, steps: [self._accept(s.header, s.table) for s in steps]
        ),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_newcomer_that_leaves_out_a_check_is_caught(mutant):
    lie, seeded = MUTANTS[mutant]
    with pytest.MonkeyPatch.context() as patch:
        seeded(patch)
        with pytest.raises((AssertionError, LedgerError)):
            lied_to(lie)


def test_silent_and_boastful_nodes_hold_nobody_up():
    cluster = late()

    def boast(sender: Node, target: Node, data: bytes) -> bytes | None:
        return None if sender.name in "ab" and data[0] == offers.OFFER else data

    cluster.outgoing = slowly(boast)
    assert joined(cluster, "e", 13).files.base.height == 12


def test_a_stale_snapshot_is_left_where_it_is():
    cluster = late(height=9)
    stale = cluster.nodes["a"].shelf.at(8)
    assert stale is not None
    grow(cluster, 21)
    for name in "abc":
        cluster.nodes[name].shelf.kept.clear()
        cluster.nodes[name].shelf.kept.append(stale)
    cluster.outgoing = slowly(truly, 20)
    node = joined(cluster, "e", 21)
    assert (node.files.base.height, node.accused) == (20, [])


@pytest.mark.parametrize("right", [True, False])
def test_a_pinned_block_must_be_on_the_way(right):
    cluster = late()
    record = cluster.nodes["a"].files.record(5)

    cluster.nodes["e"].pins = {5: decision(record).commit.block_hash if right else bytes(32)}
    if right:
        cluster.outgoing = slowly(truly)
    node = joined(cluster, "e", 13)
    if right:
        assert node.files.base.height == 12
    else:  # nobody has that chain: what is left is to replay
        assert node.files.base.height == 0


def run_seed(seed: int) -> None:
    """A newcomer, traffic, lost messages, epochs, a liar, and a crash at any of its writes."""
    draw = random.Random(seed)
    cluster = late(seed, draw.randrange(9, 16))
    cluster.loss = draw.choice((0.0, 0.1, 0.2))
    liar, tell = draw.choice("abcd"), draw.choice(list(LIES.values()))[0]
    told = lambda sender, target, data: tell(data) if sender.name == liar else data  # noqa: E731
    cluster.outgoing = slowly(told) if draw.random() < 0.7 and cluster.nodes["a"].state.height > 12 else told
    node = cluster.nodes["e"]
    cluster.boot(node)
    node.disk.fail_at = node.disk.calls + draw.randrange(30)
    target = cluster.nodes["a"].state.height + draw.randrange(2, 8)
    for act in (partial(grow, cluster, target), partial(cluster.settle, target)):
        try:
            act()
        except Crash:
            cluster.crash("e")
            cluster.boot(node)
            act()
    cluster.audit()
    assert {sender for sender, _ in node.accused} <= {
        key(liar).public
    }  # the honest never are, whatever is lost
    for name in "abcd":
        assert not cluster.nodes[name].reports


@pytest.mark.parametrize("seed", range(6))
def test_seeds(seed):
    run_seed(seed)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_many_seeds():
    for seed in range(100, 300):
        run_seed(seed)
