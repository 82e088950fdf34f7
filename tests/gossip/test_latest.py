"""Latest copies: the fixed point of D-PSGD whatever happens on the way, bounded memory, a common end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.collect import exact_mean
from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into
from pydec.comm.local import LocalCluster, LocalTransport
from pydec.errors import PeerTimeout, ProtocolError
from pydec.gossip.latest import PATIENCE, LatestExchange
from pydec.gossip.packets import WINDOW

Vector = NDArray[np.float32]
SIZE, D, ETA = 4, 6, np.float32(0.3)
RANDOM = np.random.default_rng(5)
A = RANDOM.uniform(0.5, 1.5, (SIZE, D)).astype(np.float32)
B = RANDOM.standard_normal((SIZE, D)).astype(np.float32)
ROUGH: dict[str, Any] = {"delay_s": (0.0, 3.0), "loss": 0.2, "duplicate": 0.2, "reorder": 0.2}


def make(transport: LocalTransport, x: Vector, graph: str = "ring", code: str = "none") -> LatestExchange:
    schedule, algorithm = topology.make(graph, size=transport.size), gossip.make("adsgd")
    mixer = algorithm.mixer(x, compress.make(code), schedule.degree)
    return LatestExchange(transport, schedule, [mixer], seed=1)


def fixed_point(weights: NDArray[np.float64], ranks: list[int]) -> NDArray[np.float64]:
    """(I - W) X = -eta A (X - B), column by column."""
    a, b = A[ranks].astype(np.float64), B[ranks].astype(np.float64)
    eta, one = float(ETA), np.eye(len(ranks))
    return np.stack(
        [np.linalg.solve(one - weights + eta * np.diag(a[:, k]), eta * a[:, k] * b[:, k]) for k in range(D)],
        1,
    )


def descend(
    transport: LocalTransport,
    pace_s: float,
    until_s: float,
    graph: str = "ring",
    code: str = "none",
    each: Callable[[LatestExchange, Vector], None] = lambda exchange, x: None,
) -> tuple[Vector, LatestExchange]:
    """Steps of ``pace_s`` virtual seconds each."""
    x = np.zeros(D, np.float32)
    exchange = make(transport, x, graph, code)
    while transport.now() < until_s:
        exchange.begin(0)
        each(exchange, x)
        transport.sleep(pace_s)
        step = ETA * A[transport.rank] * (x - B[transport.rank])
        exchange.finish()
        x -= step
    exchange.begin(0)
    return x, exchange


@pytest.mark.parametrize("seed", range(4))
def test_the_fixed_point_depends_on_no_speed_delay_or_loss(seed: int) -> None:
    paces = [1.0, 10.0, 2.5, 1.0]

    def program(transport: LocalTransport) -> Vector:
        x, exchange = descend(transport, paces[transport.rank], 800.0)
        exchange.close()
        return x

    got = LocalCluster(SIZE, seed, **(ROUGH if seed else {})).run(program)
    expected = fixed_point(topology.make("ring", size=SIZE).weights(0), list(range(SIZE)))
    # float32 rounds a step to about 1e-7 and a step contracts by 0.1 or more: 1e-6 is left of it
    np.testing.assert_allclose(np.stack(got), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_every_step_is_that_of_the_equation_with_the_copies_that_were_there(seed: int) -> None:
    """A simulation in NumPy, with the order of events of the run, gives the same bits."""
    published: list[list[Vector]] = [[] for _ in range(SIZE)]
    mixed: list[list[dict[int, int]]] = [[] for _ in range(SIZE)]

    def program(transport: LocalTransport) -> None:
        rank = transport.rank
        x = np.zeros(D, np.float32)
        exchange = make(transport, x)
        for _ in range(60):
            exchange.begin(0)
            published[rank].append(x.copy())
            transport.sleep([1.0, 3.7, 1.3, 0.9][rank])
            step = ETA * A[rank] * (x - B[rank])
            exchange.finish()
            mixed[rank].append({peer: versions[0] for peer, versions in exchange.versions.items()})
            x -= step
        exchange.close()

    LocalCluster(SIZE, seed, **ROUGH).run(program)
    weights = topology.make("ring", size=SIZE)
    for rank in range(SIZE):
        x = published[rank][0]
        for step, versions in enumerate(mixed[rank]):
            np.testing.assert_array_equal(x, published[rank][step])
            gradient = ETA * A[rank] * (x - B[rank])
            known = {peer: version for peer, version in versions.items() if version}
            heard = weights.row(rank, 0)[1]
            new = np.float32(1.0 - sum(heard[peer] for peer in known)) * x
            for peer, version in known.items():
                new = new + np.float32(heard[peer]) * published[peer][version - 1]
            x = (new if known else x) - gradient
    assert all(min(steps[-1].values()) > 5 for steps in mixed)  # and copies did arrive


def test_versions_never_go_back_and_older_copies_are_counted() -> None:
    def program(transport: LocalTransport) -> int:
        last = dict.fromkeys(range(SIZE), 0)

        def check(exchange: LatestExchange, x: Vector) -> None:
            for peer, versions in exchange.versions.items():
                assert versions[0] >= last[peer]
                last[peer] = versions[0]

        exchange = descend(transport, 1.0, 100.0, each=check)[1]
        exchange.close()
        return exchange.dropped

    assert sum(LocalCluster(SIZE, 3, **ROUGH).run(program)) > 10


def test_a_fast_rank_has_one_message_under_way_to_a_slow_one_and_memory_stays_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pydec.gossip.base._MIN_BUCKET_ELEMENTS", 8)
    n, buckets, messages = 32, 4, []

    def program(transport: LocalTransport) -> int:
        x = np.full(n, transport.rank, np.float32)
        exchange = make(transport, x)
        if transport.rank == 1:
            transport.sleep(20.0)  # has opened nothing yet
        before, steps = exchange.buffer_bytes, 100 if transport.rank != 1 else 1
        for _ in range(steps):
            exchange.begin(0)
            transport.sleep(0.1)
            exchange.finish()
            slots = exchange.slots
            assert len(slots.free) == len(set(slots.free))
        if transport.rank == 0:
            messages.extend(event for event in cluster.trace if event.kind == "send" and event.receiver == 1)
        exchange.begin(0)
        exchange.flush()
        assert exchange.buffer_bytes == before
        return slots.count - len(slots.free)

    cluster = LocalCluster(SIZE, deadline_s=1000.0, trace=True)
    used = cluster.run(program)
    assert [event.sender for event in messages].count(0) == 1
    assert set(used) == {buckets + 2}  # nothing travels: the own packets, and a place for each neighbour's


@pytest.mark.parametrize(("code", "models"), [("none", 3.6), ("int8", 0.93)])
def test_memory_is_a_packet_of_every_neighbour_and_of_the_own_model(code: str, models: float) -> None:
    n = 200_000

    def program(transport: LocalTransport) -> int:
        return make(transport, np.zeros(n, np.float32), code=code).buffer_bytes

    assert max(LocalCluster(8).run(program)) < models * 4 * n


@pytest.mark.parametrize("code", ["int8", "int8:rounding=stochastic", "bf16"])
def test_quantised_copies_end_near_the_fixed_point(code: str) -> None:
    def program(transport: LocalTransport) -> Vector:
        x, exchange = descend(transport, [1.0, 4.0, 1.0, 2.0][transport.rank], 300.0, code=code)
        exchange.close()
        return x

    got = LocalCluster(SIZE, 1, **ROUGH).run(program)
    expected = fixed_point(topology.make("ring", size=SIZE).weights(0), list(range(SIZE)))
    step = np.abs(expected).max() / 127
    np.testing.assert_allclose(np.stack(got), expected, atol=4 * step)


def test_where_ranks_agree_a_quantiser_pulls_at_nothing() -> None:
    start = RANDOM.standard_normal(D).astype(np.float32)

    def program(transport: LocalTransport) -> Vector:
        x = start.copy()
        exchange = make(transport, x, code="int8")
        for _ in range(10):
            exchange.begin(0)
            transport.sleep(1.0)
            exchange.finish()
        exchange.close()
        return x

    for x in LocalCluster(SIZE).run(program):
        np.testing.assert_allclose(x, start, atol=1e-6)


def test_the_weight_of_a_peer_that_is_gone_returns_to_the_own_model() -> None:
    results: dict[int, Vector] = {}

    def program(transport: LocalTransport) -> None:
        if transport.rank == 3:
            descend(transport, 1.0, 20.0, "complete")
            raise ArithmeticError("killed")
        x, exchange = descend(transport, [1.0, 5.0, 2.0][transport.rank], 400.0, "complete")
        assert exchange.gone == {3}
        exchange.flush()  # the dead count as ended
        results[transport.rank] = x

    with pytest.raises(ArithmeticError, match="killed"):
        LocalCluster(SIZE, 2, delay_s=(0.0, 2.0)).run(program)
    weights = np.full((3, 3), 0.25) + 0.25 * np.eye(3)
    np.testing.assert_allclose([results[r] for r in range(3)], fixed_point(weights, [0, 1, 2]), atol=2e-6)


def test_a_rank_that_ends_early_waits_for_all_and_then_they_merge() -> None:
    def program(transport: LocalTransport) -> tuple[float, Vector, float]:
        x, exchange = descend(transport, 1.0, [5.0, 60.0, 20.0, 30.0][transport.rank])
        exchange.finish()
        exchange.flush()
        met_s = transport.now()
        assert all(version == [0] for version in exchange.versions.values())
        mean = x.copy()
        exact_mean(transport, mean)
        x[:] = mean
        for _ in range(10):  # training goes on afterwards
            exchange.begin(0)
            transport.sleep(1.0)
            exchange.finish()
        exchange.flush()
        return met_s, x, exchange.wait_s

    results = LocalCluster(SIZE, 4, delay_s=(0.0, 0.5), deadline_s=10.0).run(program)
    assert all(60.0 <= met_s < 65.0 for met_s, _, _ in results)  # nobody before the slowest
    assert results[0][2] > 50.0
    for _, x, _ in results:
        np.testing.assert_allclose(x, results[0][1], atol=1e-6)


def test_a_silent_neighbour_is_named_at_the_end() -> None:
    def program(transport: LocalTransport) -> None:
        exchange = descend(transport, 1.0, 10.0)[1]
        if transport.rank == 2:
            transport.sleep(1000.0)
        exchange.flush()

    with pytest.raises(PeerTimeout, match="rank 2 has not ended, and sent nothing for"):
        LocalCluster(SIZE, deadline_s=5.0).run(program)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sender": 3}, "sender 3 in epoch 0, expected 1"),
        ({"epoch": 4}, "sender 1 in epoch 4"),
        ({"count": 5}, "count is 5, expected 6"),
        ({"wire_id": 77}, "wire id is 77"),
        ({"bucket": 1, "buckets": 2}, "bucket 1 of 2"),
        ({"kind": Kind.GOSSIP}, "GOSSIP packet"),
        ({"garbage": 1}, "no frame"),
        ({"payload": 1}, "malformed packet"),
    ],
)
def test_a_wrong_message_names_the_peer_and_the_field(change: dict[str, Any], words: str) -> None:
    def program(transport: LocalTransport) -> None:
        x = np.zeros(D, np.float32)
        exchange = make(transport, x, "complete")
        if transport.rank == 1:
            length = 4 * D - 3 if "payload" in change else 4 * D
            wire_id = compress.make("none").wire_id
            frame = Frame(Kind.LATEST, 1, 1, bucket=0, buckets=1, offset=0, count=D, length=length)
            fields = {name: value for name, value in change.items() if name not in ("garbage", "payload")}
            message = bytearray(HEADER_BYTES + length)
            pack_into(message, replace(frame, **{"wire_id": wire_id, **fields}))
            if "garbage" in change:
                message[:4] = b"oops"
            transport.isend(0, exchange._tag, memoryview(message))
            transport.sleep(5.0)
            return
        exchange.begin(0)
        transport.sleep(1.0)
        with pytest.raises(ProtocolError, match=words) as caught:
            exchange.finish()
        assert caught.value.peer == 1

    LocalCluster(2).run(program)


def send(transport: LocalTransport, tag: int, version: int) -> None:
    """A copy to rank 0 whose values are its version."""
    code = compress.make("none")
    body = code.encode(np.full(D, version, np.float32))
    frame = Frame(Kind.LATEST, 1, version, bucket=0, buckets=1, offset=0, count=D, length=len(body))
    message = bytearray(HEADER_BYTES) + body
    pack_into(message, replace(frame, wire_id=code.wire_id))
    transport.isend(0, tag, memoryview(message))


@pytest.mark.parametrize(
    ("sent", "kept", "dropped"),
    [
        ([1, 2, 2, 2], 2, 2),  # doubled
        ([3, 1, 2, 4], 4, 2),  # reordered
        ([1, 9], 9, 0),  # lost
        ([5] + [4] * 3 * PATIENCE, 5, 3 * PATIENCE),  # one old copy again and again is no restart
        ([50, *range(1, PATIENCE)], 50, PATIENCE - 1),
        ([50, *range(1, PATIENCE + 1)], PATIENCE, PATIENCE - 1),  # restarted
        ([50, *range(1, PATIENCE), 51, *range(1, PATIENCE)], 51, 2 * PATIENCE - 2),
        (
            [1, WINDOW, *range(2, PATIENCE + 4)],
            PATIENCE + 3,
            PATIENCE - 1,
        ),  # one wrong, genuine ones after it
    ],
)
def test_old_copies_are_dropped_and_a_sender_that_counts_anew_is_followed(
    sent: list[int], kept: int, dropped: int
) -> None:
    def program(transport: LocalTransport) -> None:
        x = np.zeros(D, np.float32)
        exchange = make(transport, x, "complete")
        if transport.rank == 1:
            for version in sent:
                send(transport, exchange._tag, version)
                transport.sleep(0.1)
            transport.sleep(5.0)
            return
        exchange.begin(0)
        transport.sleep(0.1 * len(sent) + 1.0)
        exchange.finish()
        assert (exchange.versions[1], exchange.dropped) == ([kept], dropped)
        np.testing.assert_array_equal(x, np.full(D, kept / 2, np.float32))
        exchange.close()

    LocalCluster(2).run(program)


def test_a_version_that_nobody_can_have_reached_is_refused() -> None:
    def program(transport: LocalTransport) -> None:
        exchange = make(transport, np.zeros(D, np.float32), "complete")
        if transport.rank == 1:
            send(transport, exchange._tag, 7)
            transport.sleep(0.1)
            send(transport, exchange._tag, WINDOW + 8)
            transport.sleep(5.0)
            return
        exchange.begin(0)
        transport.sleep(1.0)
        with pytest.raises(ProtocolError, match=f"version {WINDOW + 8} after 7, more than {WINDOW} ahead"):
            exchange.finish()
        assert exchange.versions[1] == [7]
        exchange.close()

    LocalCluster(2).run(program)
