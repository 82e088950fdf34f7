"""Peers give one another what they lack: over lossy links, from liars, past the dead, after every churn."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydec.comm.local import Death, LocalCluster
from pydec.comm.transport import Stream
from pydec.crypto import signing
from pydec.crypto.serving import serving_bytes
from pydec.crypto.signing import SigningKey
from pydec.errors import ChunkError, FrameError
from pydec.store.exchange import DEADLINE_S, Exchange
from pydec.store.messages import NONCE_BYTES, PIECE_BYTES, Kind, Message
from pydec.store.objects import digest_of
from pydec.store.possession import possession
from pydec.store.serving import Proof, Seal
from pydec.store.store import Store
from tests.consensus.lossy_disk import LossyDisk
from tests.consensus.test_decoders import Decoder, bounded, fuzz
from tests.store.test_upkeep import AT

MESSAGES = [
    Message(Kind.OBJECT, 7, b"d" * 32),
    Message(Kind.MANIFEST, 1, b"d" * 32),
    Message(Kind.DATA, 2, b"d" * 32, 10, 20, b"abc"),
    Message(Kind.LACK, 3, b"d" * 32),
    Message(Kind.CHALLENGE, 4, b"d" * 32, 100, 200, bytes(NONCE_BYTES)),
    Message(Kind.PROOF, 5, b"d" * 32, body=bytes(32)),
    Message(Kind.SIGNED, 6, b"d" * 32, body=bytes(64)),
    Message(Kind.REPORT, 3, b"d" * 32, 9, body=bytes(72)),
    Message(Kind.STANDING, 0, b"d" * 32, body=bytes(33)),
]
DECODER = Decoder(Message.decode, Message.encode, [message.encode() for message in MESSAGES])


def test_mutants_are_messages_of_one_encoding_or_frame_errors():
    assert fuzz(DECODER, 3000, seed=5) > 0
    for message in MESSAGES:
        assert bounded(DECODER, message.encode()) == message


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_frame_error(data):
    try:
        message = Message.decode(data)
    except FrameError:
        return
    assert message.encode() == data


def store_of(*objects: bytes, disk: LossyDisk | None = None) -> Store:
    """A store in memory."""
    store = Store(AT, create=True, disk=disk or LossyDisk(), syncs=1)
    for data in objects:
        store.objects.put(data)
    store.objects.commit()
    return store


class Liar:
    """A store whose objects are not what their names say."""

    class objects:
        @staticmethod
        def get(digest: bytes) -> bytes:
            return b"something else" * 9000


BLOBS = [
    random.Random(n).randbytes(size) for n, size in enumerate([1, 100, PIECE_BYTES, PIECE_BYTES + 1, 300_000])
]


def program_of(stores: dict[int, object], wanted: dict[int, list[bytes]], **options: object):
    """Every rank gets what it wants, serves the others, and ends when all have."""

    def program(transport):
        link = transport.stream(Stream.DATA)
        exchange = Exchange(link, stores[transport.rank], **options)
        requests = [exchange.want(digest_of(data)) for data in wanted.get(transport.rank, [])]
        told, heard = False, {transport.rank}
        control = transport.stream(Stream.CONTROL)
        while True:
            exchange.turn()
            if not told and all(request.done for request in requests):
                told = True
                for peer in range(transport.size):
                    if peer != transport.rank:
                        control.post(peer, b"done")
            while (note := control.poll()) is not None:
                heard.add(note[0])
            alive = set(range(transport.size)) - transport.lost()
            if told and alive <= heard and not exchange.busy:
                break
            transport.sleep(0.01)
        return [request.data for request in requests], exchange

    return program


@pytest.mark.parametrize("seed", range(5))
def test_what_one_peer_has_all_get_verified_and_keep(seed):
    stores = {0: store_of(*BLOBS), 1: store_of(), 2: store_of(BLOBS[1]), 3: store_of()}
    wanted = {1: BLOBS, 2: BLOBS, 3: BLOBS[::-1]}
    results = LocalCluster(4, seed, delay_s=(0.0, 0.02)).run(program_of(stores, wanted))
    for rank, blobs in wanted.items():
        assert results[rank][0] == blobs
        assert all(stores[rank].objects.get(digest_of(data)) == data for data in blobs)
    assert sum(exchange.counts["bad"] for _, exchange in results) == 0


@pytest.mark.parametrize("seed", range(5))
def test_liars_are_counted_and_others_are_asked(seed):
    stores = {0: Liar(), 1: store_of(), 2: Liar(), 3: store_of(*BLOBS)}
    results = LocalCluster(4, seed, delay_s=(0.0, 0.02)).run(program_of(stores, {1: BLOBS[1:]}))
    data, exchange = results[1]
    assert data == BLOBS[1:]
    assert set(exchange.liars) <= {0, 2}
    assert exchange.counts["bad"] == sum(exchange.liars.values()) > 0


KEYS = {rank: SigningKey(bytes([rank]) * 32) for rank in range(4)}


class LyingSeal(Seal):
    """Signs for the bytes that a ``Liar`` sends."""

    def sign(self, asker: int, request: int, name: bytes, digest: bytes) -> bytes:
        return super().sign(asker, request, name, digest_of(Liar.objects.get(name)))


def sealed(stores: dict[int, object], liars: type[Seal]) -> tuple[list[object], list[Proof], Exchange]:
    """Rank 1 gets all blobs where everybody signs."""
    proofs: list[Proof] = []

    def program(transport):
        rank = transport.rank
        kind = liars if isinstance(stores[rank], Liar) else Seal
        public = {peer: key.public for peer, key in KEYS.items()}
        seal = kind(rank, KEYS[rank], public, bytes(32), proofs.append)
        return program_of(stores, {1: BLOBS}, seal=seal)(transport)

    data, exchange = LocalCluster(4, 3, delay_s=(0.0, 0.02)).run(program)[1]
    return data, proofs, exchange


def test_what_is_signed_arrives():
    data, proofs, exchange = sealed({0: store_of(), 1: store_of(), 2: store_of(), 3: store_of(*BLOBS)}, Seal)
    assert (data, proofs, exchange.counts["bad"]) == (BLOBS, [], 0)


def test_who_signs_for_other_bytes_proves_it_to_everybody():
    stores = {0: Liar(), 1: store_of(), 2: Liar(), 3: store_of(*BLOBS)}
    data, proofs, exchange = sealed(stores, LyingSeal)
    assert data == BLOBS
    assert exchange.counts["bad"] == len(proofs) > 0
    assert exchange.counts["unsigned"] == 0
    for proof in proofs:
        assert proof.peer in (0, 2)
        assert proof.name in map(digest_of, BLOBS)
        said = serving_bytes(bytes(32), proof.asker, proof.request, proof.name, proof.digest)
        signing.verify(KEYS[proof.peer].public, said, proof.signature)


def test_bytes_that_no_signature_covers_are_dropped_and_prove_nothing():
    stores = {0: Liar(), 1: store_of(), 2: Liar(), 3: store_of(*BLOBS)}
    data, proofs, exchange = sealed(stores, Seal)  # the liars sign for what was asked for
    assert (data, proofs) == (BLOBS, [])
    assert exchange.counts["unsigned"] == exchange.counts["bad"] > 0


@pytest.mark.parametrize("seed", range(8))
def test_the_dead_are_passed_over_in_the_middle_of_an_object(seed):
    big = [random.Random(n).randbytes(1 << 20) for n in range(3)]
    stores = {0: store_of(), 1: store_of(*big), 2: store_of(*big)}
    cluster = LocalCluster(
        3, seed, delay_s=(0.0, 0.01), bytes_per_s=2e7, deaths={1: Death((0.01, 0.3), (0.0, 0.5))}
    )
    assert cluster.run(program_of(stores, {0: big}))[0][0] == big


@pytest.mark.parametrize("seed", range(5))
def test_lost_and_doubled_messages_cost_time_and_nothing_else(seed):
    stores = {n: store_of(*BLOBS[:3]) for n in range(1, 6)} | {0: store_of()}

    def program(transport):
        exchange = Exchange(transport.stream(Stream.DATA), stores[transport.rank])
        requests = [exchange.want(digest_of(data)) for data in BLOBS[:3]] if transport.rank == 0 else []
        for _ in range(int(5 * DEADLINE_S / 0.05)):
            exchange.turn()
            transport.sleep(0.05)
            if transport.rank == 0 and all(request.done for request in requests):
                break
        return [request.data for request in requests]

    found = LocalCluster(6, seed, delay_s=(0.0, 0.02), loss=0.1, duplicate=0.1).run(program)[0]
    assert all(data in (None, blob) for data, blob in zip(found, BLOBS, strict=False))
    assert found.count(None) <= 1


def test_what_nobody_has_is_an_error_at_once():
    def program(transport):
        exchange = Exchange(transport.stream(Stream.DATA), store_of())
        if transport.rank:
            while transport.now() < 1:
                exchange.turn()
                transport.sleep(0.01)
            return transport.now()
        with pytest.raises(ChunkError, match="neither here nor at any of 2 peers"):
            exchange.get(digest_of(b"nothing"), nap=lambda: transport.sleep(0.001))
        return transport.now()

    assert LocalCluster(3).run(program)[0] < 0.2


def test_who_is_not_admitted_gets_nothing():
    stores = {0: store_of(), 1: store_of(*BLOBS), 2: store_of()}
    results = LocalCluster(3).run(
        program_of(stores, {0: BLOBS[:1], 2: BLOBS[:1]}, admit=lambda peer, digest: peer != 0)
    )
    assert (results[0][0], results[2][0]) == ([None], BLOBS[:1])
    assert results[1][1].counts["denied"] == 1


def test_possession_is_proved_and_cannot_be_without_the_bytes():
    data, nonce = BLOBS[4], bytes(range(32))

    def program(transport):
        exchange = Exchange(
            transport.stream(Stream.DATA), store_of(data) if transport.rank < 2 else store_of()
        )
        asked = {}
        if transport.rank == 0:
            asked = {peer: exchange.challenge(peer, digest_of(data), 1000, 5000, nonce) for peer in (1, 2)}
            asked[3] = exchange.challenge(1, digest_of(data), 299_999, 2, nonce)
        while transport.now() < 0.5:
            exchange.turn()
            transport.sleep(0.01)
        return {peer: exchange.proof(key) for peer, key in asked.items()}

    found = LocalCluster(3).run(program)[0]
    assert found == {1: possession(data, 1000, 5000, nonce), 2: b"", 3: b""}
    assert found[1] != possession(data[:1000] + b"x" + data[1001:], 1000, 5000, nonce)
