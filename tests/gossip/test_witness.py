"""Whoever tells different things is found, and nobody else: witnesses in a simulated network, many seeds."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

import pytest

from pydec.crypto.claims import CONTEXT_BYTES, claim_bytes, payload_digest
from pydec.crypto.signing import SigningKey, verify
from pydec.gossip.witness import ENTRY_BYTES, Conflict, Said, Slot, Witness, successors

CONTEXT = bytes(range(CONTEXT_BYTES))
KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 10)]


def claim(rank: int, slot: Slot, digest: bytes, context: bytes = CONTEXT) -> Said:
    return Said(digest, KEYS[rank].sign(claim_bytes(context, *slot, digest)))


def witness(rank: int, size: int = 4, witnesses: int = 2) -> Witness:
    return Witness(rank, CONTEXT, KEYS[rank], {r: KEYS[r].public for r in range(size)}, witnesses)


class Network:
    """Ranks that all hear each other; notes are delayed, lost, doubled and reordered; some ranks lie.

    Args:
        size: ranks; the last one equivocates in some rounds.
        silent: that work with it: they pass on nothing true, and make things up.
        loss: chance that a note is lost.
    """

    def __init__(self, size: int, silent: set[int], loss: float, seed: int, witnesses: int = 2) -> None:
        self.random = random.Random(seed)
        self.size, self.liar, self.silent, self.loss = size, size - 1, silent, loss
        self.honest = [rank for rank in range(size - 1) if rank not in silent]
        self.nodes = {rank: witness(rank, size, witnesses) for rank in self.honest}
        self.found: dict[int, Counter[int]] = {rank: Counter() for rank in self.honest}
        self.conflicts: list[Conflict] = []
        for rank, node in self.nodes.items():
            node.accuse = partial(self.accused, rank)
        self.waiting: list[tuple[int, int, bytes]] = []

    def accused(self, rank: int, conflict: Conflict) -> None:
        self.found[rank].update([conflict.peer])
        self.conflicts.append(conflict)

    def round(self, number: int, split: set[int]) -> None:
        """Everybody sends; the liar one thing to ``split`` and another to the rest."""
        for rank, node in self.nodes.items():
            for peer in range(self.size):
                if peer != rank:
                    other = peer == self.liar and rank in split
                    slots = [Slot(0, number, bucket) for bucket in range(2)]
                    self.random.shuffle(slots)
                    for slot in slots:
                        said = claim(peer, slot, payload_digest(bytes([peer, number, slot.number, other])))
                        node.take(peer, slot, said)
            self.deliver(0.5)
            for to, note in node.notes(number, self.listeners).items():
                if to in self.nodes and self.random.random() >= self.loss:
                    self.waiting += [(rank, to, note)] * self.random.choice((1, 1, 1, 2))
        for rank in self.silent:  # what it makes up about honest ranks and the liar it cannot sign
            slot = Slot(0, number, 0)
            entry = b"".join(
                peer.to_bytes(4, "big") + bytes(8) + number.to_bytes(8, "big") + bytes(4) + bytes(96)
                for peer in range(self.size)
            )
            assert len(entry) == ENTRY_BYTES * self.size
            assert slot.round == number
            self.waiting += [(rank, to, entry) for to in self.honest]
        self.deliver(0.5)

    def deliver(self, share: float) -> None:
        self.random.shuffle(self.waiting)
        keep = round(len(self.waiting) * (1 - share))
        now, self.waiting = self.waiting[keep:], self.waiting[:keep]
        for teller, to, note in now:
            self.nodes[to].hear(teller, note)

    def listeners(self, peer: int) -> list[int]:
        return [rank for rank in range(self.size) if rank != peer]


@pytest.mark.parametrize("seed", range(40))
def test_who_equivocates_is_found_by_honest_listeners_and_nobody_else_is(seed):
    """Up to 2 witnesses - 1 of the listeners work with the liar."""
    draw = random.Random(seed)
    silent = set(draw.sample(range(7), draw.randrange(4)))
    network = Network(8, silent, 0.0, seed)
    split = set(draw.sample(network.honest, draw.randrange(1, len(network.honest))))
    network.round(0, set())
    assert not network.conflicts or network.conflicts[0].peer == 7
    network.round(1, split)
    network.deliver(1.0)
    assert {peer for found in network.found.values() for peer in found} == {7}
    for conflict in network.conflicts:
        for said in (conflict.first, conflict.second):
            verify(KEYS[7].public, claim_bytes(CONTEXT, *conflict.slot, said.digest), said.signature)
        assert conflict.first.digest < conflict.second.digest
    assert all(count == 1 for found in network.found.values() for count in found.values())


@pytest.mark.parametrize("seed", range(20))
def test_notes_that_are_lost_delay_it_at_most(seed):
    network = Network(6, set(), 0.4, seed)
    for number in range(12):
        network.round(number, {0, 2})
    network.deliver(1.0)
    assert {peer for found in network.found.values() for peer in found} == {5}


@pytest.mark.parametrize("seed", range(20))
def test_honest_ranks_are_never_accused(seed):
    draw = random.Random(seed)
    network = Network(8, set(draw.sample(range(7), 3)), 0.2, seed)
    for number in range(6):
        network.round(number, set())
    network.deliver(1.0)
    assert not network.conflicts
    assert all(not node.guilty for node in network.nodes.values())
    assert all(node.counts["made up"] for node in network.nodes.values())


def test_what_is_not_signed_by_its_sender_is_dropped_and_counted():
    node, slot, digest = witness(0), Slot(0, 3, 0), payload_digest(b"x")
    assert node.take(1, slot, claim(1, slot, digest))
    assert not node.take(1, slot, claim(2, slot, digest))
    assert not node.take(2, slot, Said(digest, bytes(64)))
    assert not node.take(2, slot, Said(digest, b""))
    assert not node.take(2, slot, claim(2, slot, digest, bytes(CONTEXT_BYTES)))  # of another run
    assert not node.take(2, slot, claim(2, Slot(0, 2, 0), digest))  # of another round
    assert not node.take(8, slot, claim(8, slot, digest))  # nobody knows its key
    assert node.counts["unsigned"] == 6


def test_the_guilty_are_not_heard_any_more():
    node, slot = witness(0), Slot(0, 3, 0)
    node.guilty.add(1)
    assert not node.take(1, slot, claim(1, slot, payload_digest(b"x")))
    assert node.counts["refused"] == 1


def test_no_honest_rank_signs_two_things():
    node = witness(0)
    signature = node.sign(Slot(0, 1, 0), payload_digest(b"x"))
    assert node.sign(Slot(0, 1, 0), payload_digest(b"x")) == signature
    with pytest.raises(RuntimeError, match="signed with another digest"):
        node.sign(Slot(0, 1, 0), payload_digest(b"y"))
    node.sign(Slot(0, 2, 0), payload_digest(b"y"))
    with pytest.raises(RuntimeError, match="comes after"):
        node.sign(Slot(0, 1, 1), payload_digest(b"x"))


def test_notes_are_bounded_and_strange_ones_ignored():
    node = witness(0)
    node.hear(1, b"x")
    assert node.counts["ignored"] == 1
    far = claim(2, Slot(0, 10**6, 0), payload_digest(b"x"))
    entry = (
        bytes([0, 0, 0, 2]) + bytes(8) + (10**6).to_bytes(8, "big") + bytes(4) + far.digest + far.signature
    )
    node.hear(1, entry)
    assert node.counts["ignored"] == 2
    assert not node._told
    slot = Slot(0, 0, 0)
    node.take(2, slot, claim(2, slot, payload_digest(b"x")))
    made_up = bytes([0, 0, 0, 2]) + bytes(20) + bytes(96)
    for _ in range(100):
        node.hear(1, made_up)
    assert node.counts["made up"] == 16  # then it is not heard any more
    assert node.counts["ignored"] == 86
    with pytest.raises(ValueError, match="at least 1 witness, got 0"):
        witness(0, witnesses=0)


def test_who_is_told_comes_next_in_the_circle():
    assert successors([1, 3, 5, 7], 5, 2) == [7, 1]
    assert successors([1, 3], 3, 2) == [1]
    assert successors([3], 3, 2) == []
    assert successors([1, 2], 3, 2) == []


def test_a_claim_binds_everything_that_it_says():
    slot, digest = Slot(1, 2, 3), payload_digest(b"x")
    texts = {
        claim_bytes(CONTEXT, *slot, digest),
        claim_bytes(CONTEXT[::-1], *slot, digest),
        claim_bytes(CONTEXT, 0, 2, 3, digest),
        claim_bytes(CONTEXT, 1, 0, 3, digest),
        claim_bytes(CONTEXT, 1, 2, 0, digest),
        claim_bytes(CONTEXT, *slot, payload_digest(b"y")),
    }
    assert len(texts) == 6
