"""The fragments of a chunk come from different peers at the same time, and others in place of late ones."""

from __future__ import annotations

import random

import pytest

from pydec.errors import ChunkError
from pydec.store.erasure import Code
from pydec.store.exchange import LATE_S, Exchange
from pydec.store.fragments import gather
from pydec.store.gathering import Gathering
from pydec.store.objects import digest_of
from tests.store.test_churn import Network
from tests.store.test_exchange import store_of

CODE = Code(4, 2)
CHUNK = random.Random(0).randbytes(10_000)
PARTS = CODE.encode(CHUNK)
NAMES = [digest_of(part) for part in PARTS]


def town(held: list[int]) -> tuple[Network, list[Exchange]]:
    """Peer 0 has nothing, and every other one a fragment, which peer 0 knows."""
    net = Network()
    links = [net.link(rank) for rank in range(len(held) + 1)]
    places = {NAMES[number]: [rank] for rank, number in enumerate(held, 1)}
    first = Exchange(links[0], store_of(), lambda digest: places.get(digest, ()))
    return net, [
        first, *(Exchange(link, store_of(PARTS[n])) for link, n in zip(links[1:], held, strict=True))
    ]  # fmt: skip


def test_as_many_peers_are_asked_at_once_as_fragments_are_missing():
    net, (first, *others) = town([0, 1, 2, 3, 4, 5])
    wanted = Gathering(first, NAMES, {1: PARTS[1]}, CODE.data)
    wanted.turn()
    assert [rank for rank in net.boxes if net.boxes[rank]] == [1, 3, 4]
    for exchange in (*others, first):
        exchange.turn()
    assert wanted.turn()
    assert wanted.done
    assert CODE.decode(wanted.found, len(CHUNK)) == CHUNK


def test_another_fragment_is_asked_for_in_place_of_a_late_one():
    net, (first, *others) = town([0, 1, 2, 3, 4, 5])
    wanted = Gathering(first, NAMES, {}, CODE.data)
    while not wanted.done:
        net.time_s += LATE_S / 4
        wanted.turn()
        for exchange in (*others[1:], first):  # peer 1 says nothing
            exchange.turn()
        assert net.time_s < 3 * LATE_S
    assert sorted(wanted.found) == [1, 2, 3, 4]


@pytest.mark.parametrize("held", [[0, 2, 4, 5], [1, 3, 5]])
def test_a_chunk_is_read_from_any_fragments_that_are_enough(held):
    net, exchanges = town(held)

    class Reader:
        def get(self, digest: bytes) -> bytes:
            raise AssertionError("fragments are asked for one by one")

        def several(self, names: list[bytes], count: int) -> dict[int, bytes]:
            wanted = Gathering(exchanges[0], names, {}, count)
            while not wanted.done:
                net.time_s += 0.1
                wanted.turn()
                for exchange in exchanges:
                    exchange.turn()
            return wanted.found

    if len(held) >= CODE.data:
        assert gather(Reader(), CODE, NAMES, digest_of(CHUNK), len(CHUNK)) == CHUNK
    else:
        with pytest.raises(ChunkError, match="3 of its 6 fragments are to be had, and 4 are needed"):
            gather(Reader(), CODE, NAMES, digest_of(CHUNK), len(CHUNK))


def test_the_only_peer_that_has_a_new_chunk_is_found_among_many():
    net = Network()
    links = [net.link(rank) for rank in range(30)]
    stores = [store_of() for _ in links[:-1]] + [store_of(*PARTS)]  # the last one owes nothing, and has all
    exchanges = [Exchange(link, store, lambda _: ()) for link, store in zip(links, stores, strict=True)]
    wanted = Gathering(exchanges[0], NAMES, {}, CODE.data)
    for _ in range(500):
        net.time_s += 0.01
        wanted.turn()
        for exchange in exchanges:
            exchange.turn()
    assert wanted.done
    assert CODE.decode(wanted.found, len(CHUNK)) == CHUNK
