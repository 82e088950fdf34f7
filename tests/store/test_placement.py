"""Places follow weights, avoid sharing nodes, and move only what a change of the view must move."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydec.store.integers import LOG_ONE, minus_log2, mix
from pydec.store.objects import digest_of
from pydec.store.placement import MOST_WEIGHT, Holder, Placement

NAMES = [digest_of(n.to_bytes(4, "little")) for n in range(1, 401)]


def holders(count: int, nodes: int = 0, weights: list[int] | None = None, racks: int = 0) -> list[Holder]:
    return [
        Holder(
            f"peer {n}".encode(),
            f"node {n % nodes if nodes else n}",
            weights[n] if weights else 1,
            f"rack {n % (nodes or count) % racks}" if racks else "",
        )
        for n in range(count)
    ]


def places(view: list[Holder], replicas: int = 3) -> dict[bytes, set[bytes]]:
    found = Placement(view, replicas).of_all(NAMES)
    return {name: {holder.peer for holder in held} for name, held in zip(NAMES, found, strict=True)}


views = st.builds(
    holders,
    st.integers(1, 20),
    st.integers(0, 6),
    st.lists(st.integers(1, 1000), min_size=20, max_size=20),
    st.integers(0, 3),
)


@settings(max_examples=30, deadline=None)
@given(views, st.integers(1, 4), st.randoms())
def test_the_order_of_the_view_does_not_matter(view, replicas, random):
    mixed = list(view)
    random.shuffle(mixed)
    assert places(view, replicas) == places(mixed, replicas)


@settings(max_examples=30, deadline=None)
@given(views, st.integers(1, 4))
def test_there_are_as_many_replicas_and_nodes_as_can_be(view, replicas):
    for held in Placement(view, replicas).of_all(NAMES[:100]):
        assert len({holder.peer for holder in held}) == len(held) == min(replicas, len(view))
        nodes = {holder.node for holder in view}
        assert len({holder.node for holder in held}) == min(replicas, len(nodes))
        racks = {holder.rack for holder in view}
        if "" not in racks:
            assert len({holder.rack for holder in held}) == min(replicas, len(racks))


@settings(max_examples=30, deadline=None)
@given(views, st.integers(1, 4), st.data())
def test_who_leaves_moves_only_what_it_had(view, replicas, data):
    gone = data.draw(st.sampled_from(view))
    before, after = places(view, replicas), places([h for h in view if h != gone], replicas)
    for name in NAMES:
        if gone.peer in before[name]:
            assert len(after[name] - before[name]) <= 1
            assert before[name] - after[name] == {gone.peer}
        else:
            assert after[name] == before[name]


@settings(max_examples=30, deadline=None)
@given(views, st.integers(1, 4), st.integers(1, 1000))
def test_who_comes_takes_only_what_it_gets(view, replicas, weight):
    new = Holder(b"new", "another node", weight, "rack 0" if view[0].rack else "")
    before, after = places(view, replicas), places([*view, new], replicas)
    for name in NAMES:
        assert after[name] - before[name] in (set(), {b"new"})
        assert len(before[name] - after[name]) <= 1


def test_shares_follow_weights():
    weights = [1, 2, 3, 4, 10]
    names = [digest_of(n.to_bytes(4, "little")) for n in range(1, 20_001)]
    found = Counter(held[0].peer for held in Placement(holders(5, 0, weights), 1).of_all(names))
    for n, weight in enumerate(weights):
        expected = len(names) * weight / sum(weights)
        assert abs(found[f"peer {n}".encode()] - expected) < 5 * math.sqrt(expected)


def test_replicas_spread_evenly():
    found = Counter(peer for held in places(holders(10)).values() for peer in held)
    assert all(abs(count - 120) < 5 * math.sqrt(120) for count in found.values())


def test_places_are_the_same_on_every_machine():
    view = holders(6, 3, [1, 5, 2, 7, 3, 1])
    found = Placement(view, 2).of_all(NAMES[:6])
    assert [[int(h.peer[5:]) for h in held] for held in found] == KNOWN


KNOWN = [[2, 3], [1, 2], [3, 1], [2, 3], [3, 2], [3, 1]]


def test_owed_is_what_the_places_say():
    view = holders(7, 4)
    placement = Placement(view, 2)
    owed = {holder.peer: placement.owed(holder.peer, NAMES) for holder in view}
    for name, held in places(view, 2).items():
        assert {peer for peer, names in owed.items() if name in names} == held


def test_a_weight_of_nothing_holds_nothing():
    view = [*holders(3), Holder(b"idle", "elsewhere", 0)]
    assert b"idle" not in set().union(*places(view).values())
    assert Placement([], 2).of(NAMES[0]) == []


@pytest.mark.parametrize("weight", [-1, MOST_WEIGHT + 1])
def test_weights_out_of_range_are_refused(weight):
    with pytest.raises(ValueError, match="weight must be in"):
        Holder(b"a", "n", weight)
    with pytest.raises(ValueError, match="at least 1"):
        Placement([], 0)
    with pytest.raises(ValueError, match="one identity"):
        Placement([Holder(b"a", "n"), Holder(b"a", "m")], 1)


def test_the_logarithm_is_one():
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.integers(0, 1 << 64, 10_000, np.uint64, endpoint=False),
            np.uint64(1) << np.arange(64, dtype=np.uint64),
            np.array([0, 1, 2, 3, (1 << 64) - 1], np.uint64),
        ]
    )
    expected = [64 - math.log2(int(n)) if n else 64.0 for n in x]
    np.testing.assert_allclose(minus_log2(x) / LOG_ONE, expected, atol=3e-7)
    assert minus_log2(x).min() > 0
    order = np.argsort(x)
    assert np.all(np.diff(minus_log2(x)[order].astype(np.int64)) <= 0)


def test_mixing_keeps_words_apart():
    x = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mix(x))) == len(x)


def spread(view: list[Holder], count: int) -> list[list[Holder]]:
    place = Placement(view, count)
    return [place.spread(NAMES[at : at + count]) for at in range(0, len(NAMES) - count, count)]


@settings(max_examples=30, deadline=None)
@given(views, st.integers(2, 7))
def test_fragments_of_a_chunk_share_as_little_as_can_be(view, count):
    nodes = Counter(holder.node for holder in view)
    for held in spread(view, count):
        assert len(held) == count
        on_node = Counter(holder.node for holder in held)
        assert max(on_node.values()) == -(-count // len(nodes))
        assert max(Counter(holder.peer for holder in held).values()) <= -(-count // len(nodes))
    assert spread(view, count) == spread(view[::-1], count)


@pytest.mark.parametrize("nodes", [0, 10])
def test_a_holder_that_leaves_moves_little_but_its_own_fragments(nodes):
    view = holders(20, nodes)
    before, after = spread(view, 6), spread(view[1:], 6)
    moved = mine = 0
    for old, new in zip(before, after, strict=True):
        mine += view[0] in old
        moved += sum(a != b for a, b in zip(old, new, strict=True))
    assert 0 < mine <= moved <= 2 * mine


def test_fragments_follow_weights():
    view = holders(12, weights=[1] * 6 + [2] * 6)
    held = Counter(holder.weight for row in spread(view, 2) for holder in row)
    assert 1.4 < held[2] / held[1] < 2.2
