"""Rounds over a transport that misbehaves, and peers that do."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.errors import PeerTimeout, ProtocolError
from pydec.gossip.exchange import Exchange, Late

SIZE, N = 4, 20_000


def vector(rank: int, n: int = N) -> NDArray[np.float32]:
    return np.random.default_rng(rank).standard_normal(n).astype(np.float32)


def make(
    transport: Transport,
    x: NDArray[np.float32],
    graph: str = "ring",
    late: Late = "raise",
    overlap: bool = True,
) -> Exchange:
    schedule = topology.make(graph, size=transport.size)
    mixer = gossip.make("dpsgd").mixer(x, compress.make("int8"), schedule.degree)
    return Exchange(transport, schedule, [mixer], late=late, overlap=overlap)


def ten_rounds(transport: Transport, n: int = N, whole: bool = False) -> NDArray[np.float32]:
    x = vector(transport.rank, n)
    exchange = make(transport, x, overlap=not whole)
    for t in range(10):
        if whole:
            exchange.run(t)
        else:
            exchange.begin(t)
            exchange.finish()
    exchange.flush()
    return x


def test_delay_reordering_and_duplicates_change_no_bit() -> None:
    calm = LocalCluster(SIZE).run(ten_rounds)
    for seed in range(5):
        rough = LocalCluster(SIZE, seed=seed, delay_s=0.01, reorder=0.5, duplicate=0.3).run(ten_rounds)
        for a, b in zip(calm, rough, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_whole_round_has_the_bits_of_its_two_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydec.gossip.base.BUCKET_ELEMENTS", 4096)
    n = 50_000  # 13 buckets: whole rounds reuse the buffers of four
    halves = LocalCluster(SIZE).run(lambda t: ten_rounds(t, n=n))
    whole = LocalCluster(SIZE).run(lambda t: ten_rounds(t, n=n, whole=True))
    for a, b in zip(halves, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_duplicate_of_an_older_round_is_dropped_and_counted() -> None:
    def program(transport: Transport) -> int:
        x = vector(transport.rank, 100)
        exchange = make(transport, x, "complete")
        # 1024 rounds later the tags repeat; the leftover of round 0 must not be taken for round 1024.
        for t in (0, 1024):
            exchange.begin(t)
            exchange.finish()
        exchange.flush()
        return exchange.dropped

    assert sum(LocalCluster(2, seed=1, duplicate=1.0).run(program)) > 0


def test_a_lost_packet_raises_or_is_left_out() -> None:
    def program(late: Late) -> list[NDArray[np.float32]]:
        def run(transport: Transport) -> NDArray[np.float32]:
            x = vector(transport.rank, 1000)
            exchange = make(transport, x, late=late)
            for t in range(20):
                exchange.begin(t)
                exchange.finish()
            exchange.close()
            return x

        return LocalCluster(SIZE, seed=2, loss=0.1, deadline_s=1.0).run(run)

    with pytest.raises(PeerTimeout):
        program("raise")
    mixed = np.stack(program("drop"))
    assert np.isfinite(mixed).all()
    assert np.linalg.norm(mixed - mixed.mean(0)) < 0.2 * np.linalg.norm(
        [vector(r, 1000) for r in range(SIZE)]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sender": 3}, "sender is 3, expected 1"),
        ({"round": 9}, "round is 9, expected 0"),
        ({"count": 5}, "count is 5"),
        ({"wire_id": 77}, "wire id is 77"),
        ({"garbage": 1}, "no frame"),
        ({"payload": 1}, "malformed packet"),
    ],
)
def test_a_wrong_packet_names_the_peer_and_the_field(change: dict[str, int], words: str) -> None:
    def program(transport: Transport) -> None:
        x = vector(transport.rank, 1000)
        if transport.rank == 0:
            exchange = make(transport, x)
            exchange.begin(0)
            with pytest.raises(ProtocolError, match=words) as caught:
                exchange.finish()
            assert caught.value.peer == 1
            assert np.array_equal(x, vector(0, 1000))
            exchange.close()
            return
        payload = np.frombuffer(compress.make("int8").encode(x), np.uint8).copy()
        fields = {
            "sender": 1,
            "round": 0,
            "count": 1000,
            "wire_id": compress.make("int8").wire_id,
        }
        frame = Frame(
            kind=Kind.GOSSIP,
            epoch=0,
            bucket=0,
            buckets=1,
            offset=0,
            length=payload.size,
            **{**fields, **{name: value for name, value in change.items() if name in fields}},
        )
        message = np.zeros(HEADER_BYTES + payload.size, np.uint8)
        pack_into(message, frame)
        message[HEADER_BYTES:] = payload
        if "garbage" in change:
            message[0] = 0
        if "payload" in change:
            message[HEADER_BYTES + 1] ^= 0xFF
        transport.isend(0, 0, memoryview(message))

    LocalCluster(2).run(program)


@pytest.mark.parametrize("late", ["raise", "drop"])
def test_a_neighbour_that_plays_a_round_in_another_epoch_is_late_at_both_ends(late: Late) -> None:
    """One has switched in round 1, the other learns of it before round 2: no wrong average, and no wait."""

    def program(transport: Transport) -> list[Any]:
        x = np.full(8, float(transport.rank), np.float32)
        graph, epochs = topology.make("complete", size=2), ([0, 1, 1], [0, 0, 1])[transport.rank]
        made, seen = {}, []
        for t, epoch in enumerate(epochs):
            if epoch not in made:
                mixer = gossip.make("dpsgd").mixer(x, compress.make("none"), 1)
                made[epoch] = Exchange(transport, graph, [mixer], epoch=epoch, late=late)
            x += transport.rank
            made[epoch].run(t)
            seen.append(float(x[0]))
        return [*seen, made[1].dropped, transport.now()]

    first, second = LocalCluster(2).run(program)
    assert first[:3] == [1.0, 1.0, 2.0]
    assert second[:3] == [1.0, 2.0, 2.0]
    assert first[-1] < 1.0  # nobody waited for a deadline


def test_random_rounding_draws_anew_for_every_rank_and_round() -> None:
    def program(transport: Transport) -> list[bytes]:
        part, graph = (
            compress.make("int4:rounding=stochastic"),
            topology.make("complete", size=transport.size),
        )
        mixer = gossip.make("dpsgd").mixer(vector(0, 1000), part, graph.degree)
        exchange = Exchange(transport, graph, [mixer], seed=5)
        sent = []
        for t in (0, 1, 0):
            exchange.begin(t)
            sent.append(exchange._outbox[HEADER_BYTES:].tobytes())
            exchange.finish(mix=False)
        return sent

    (a, b, again), (other, _, _) = LocalCluster(2).run(program)
    assert a == again
    assert len({a, b, other}) == 3


def test_an_exchange_holds_at_most_its_budget() -> None:
    n = 1 << 18
    for graph, algorithm, compressor, size in (
        ("one-peer-exponential", "dpsgd", "none", 16),
        ("exponential", "dpsgd", "none", 16),
        ("complete", "dpsgd", "int8", 12),
        ("exponential", "choco", "int8", 16),
        ("complete", "choco", "topk:fraction=0.01", 12),
    ):
        schedule, part, chosen = (
            topology.make(graph, size=size),
            compress.make(compressor),
            gossip.make(algorithm),
        )
        mixer = chosen.mixer(np.zeros(n, np.float32), part, schedule.degree)
        transport = LocalCluster(size).run(lambda t: t)[0]
        exchange = Exchange(transport, schedule, [mixer], budget=chosen.budget)
        # Headers and block scales come on top of whole models; so do packets of a compressor that
        # needs the whole vector at once, each 2 % of a model here.
        packets = 0 if part.block else (1 + schedule.degree) * part.max_bytes(n)
        assert exchange.buffer_bytes - packets <= chosen.budget * 4 * n * 1.03, (graph, algorithm, compressor)


def test_misuse_is_told() -> None:
    def program(transport: Transport) -> None:
        exchange = make(transport, vector(0))
        with pytest.raises(RuntimeError, match="no round has begun"):
            exchange.finish()
        exchange.begin(0)
        with pytest.raises(RuntimeError, match="not been finished"):
            exchange.begin(1)
        with pytest.raises(RuntimeError, match="whole rounds"):
            make(transport, vector(0), overlap=False).begin(0)

    LocalCluster(1).run(program)


def test_packets_that_move_in_the_background_change_no_bit() -> None:
    def program(transport: Transport, background: bool) -> NDArray[np.float32]:
        x = vector(transport.rank)
        exchange = make(transport, x)
        if background:
            exchange.move_in_background()
        for t in range(4):
            exchange.begin(t)
            exchange.finish()
        exchange.flush()
        exchange.close()
        return x

    plain, moved = (LocalCluster(SIZE).run(partial(program, background=b)) for b in (False, True))
    for a, b in zip(plain, moved, strict=True):
        np.testing.assert_array_equal(a, b)
