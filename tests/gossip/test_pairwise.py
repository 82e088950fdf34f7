"""Averages of two: on both sides or on neither, under any schedule, and never a deadlock."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.frames import HEADER_BYTES, Frame, Kind, pack_into, unpack
from pydec.comm.local import LocalCluster, LocalTransport
from pydec.errors import ConfigError, PeerError, PeerTimeout, ProtocolError
from pydec.gossip import ADPSGD
from pydec.gossip.asynchronous import _opened
from pydec.gossip.packets import WINDOW
from pydec.gossip.pairwise import PairwiseExchange
from pydec.gossip.requests import LATE
from pydec.gossip.rule import LocalOptimizer

Vector = NDArray[np.float32]
N = 24
SEEN = 100  # requests of the neighbour that came before
SEEDS = [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 32))]
ROUGH: dict[str, Any] = {"delay_s": (0.0, 2.0), "duplicate": 0.3, "reorder": 0.3}


def make(
    transport: LocalTransport, x: Vector, graph: str = "ring", code: str = "none", a2cid2: bool = False
) -> PairwiseExchange:
    schedule, algorithm = topology.make(graph, size=transport.size), ADPSGD(a2cid2=a2cid2)
    compressor = compress.make(code)
    algorithm.check(schedule, compressor)
    rule = algorithm.rule(x, compressor, schedule.degree)
    return algorithm.connect(transport, schedule, rule.mixers, epoch=0, seed=3)


def start(rank: int) -> Vector:
    return np.random.default_rng(rank).standard_normal(N).astype(np.float32)


def average(
    transport: LocalTransport, pace_s: float, steps: int, pull: float = 0.0, **options: Any
) -> tuple[Vector, NDArray[np.float64], PairwiseExchange]:
    """Steps that add ``pull``; the model, what was added in all, and the exchange after the meeting."""
    x, added = start(transport.rank), np.zeros(N, np.float64)
    exchange = make(transport, x, **options)
    for _ in range(steps):
        exchange.begin(0)
        transport.sleep(pace_s)
        exchange.finish()
        x += np.float32(pull * (transport.rank + 1))
        added += np.float32(pull * (transport.rank + 1))
    exchange.begin(0)
    exchange.finish()
    exchange.flush()
    return x, added, exchange


@pytest.mark.parametrize(("graph", "code"), [("ring", "none"), ("complete", "int8"), ("star", "none")])
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_changes_by_local_steps_alone_under_any_schedule(seed: int, graph: str, code: str) -> None:
    size = 5
    paces = np.random.default_rng(seed).permutation([1.0, 10.0, 2.5, 0.3, 1.7])
    steps = (60.0 / paces).astype(int)

    def program(transport: LocalTransport) -> tuple[Vector, NDArray[np.float64], int, int]:
        rank = transport.rank
        x, added, exchange = average(
            transport, float(paces[rank]), int(steps[rank]), 0.01, graph=graph, code=code
        )
        return x, added, exchange.averages, exchange.dropped

    faults = ROUGH if seed else {}
    results = LocalCluster(size, seed, deadline_s=500.0, **faults).run(program)
    expected = np.mean([start(rank) + results[rank][1] for rank in range(size)], axis=0)
    np.testing.assert_allclose(np.mean([x for x, _, _, _ in results], axis=0), expected, atol=1e-5)
    assert sum(averages for _, _, averages, _ in results) >= 8
    assert not seed or sum(dropped for _, _, _, dropped in results) > 0


@pytest.mark.parametrize(("size", "graph"), [(2, "ring"), (3, "ring"), (4, "complete"), (9, "torus")])
def test_ranks_in_step_cross_their_requests_and_agree_all_the_same(size: int, graph: str) -> None:
    def program(transport: LocalTransport) -> tuple[Vector, int]:
        x, _, exchange = average(transport, 1.0, 40, graph=graph)
        return x, exchange.averages

    results = LocalCluster(size, delay_s=0.1).run(program)
    mean = np.mean([start(rank) for rank in range(size)], axis=0)
    for x, averages in results:
        np.testing.assert_allclose(x, mean, atol=2e-3)
        assert averages >= 20


@pytest.mark.parametrize("seed", range(3))
def test_every_average_takes_place_on_both_sides(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydec.gossip.base._MIN_BUCKET_ELEMENTS", 8)  # several buckets
    seen: dict[tuple[int, int], list[tuple[int, bytes, bytes]]] = {}
    plain = PairwiseExchange._average

    def spy(self: Any, packet: Any, peer: int, own: Any, theirs: Any) -> None:
        key = (self.transport.rank, peer)
        seen.setdefault(key, []).append((packet.number, own.tobytes(), theirs.tobytes()))
        plain(self, packet, peer, own, theirs)

    monkeypatch.setattr(PairwiseExchange, "_average", spy)
    LocalCluster(4, seed, **ROUGH).run(lambda t: average(t, [0.5, 3.0, 1.0, 1.0][t.rank], 25)[0])
    assert len(seen) == 8
    for (rank, peer), averages in seen.items():
        assert averages == [(number, b, a) for number, a, b in seen[peer, rank]]
    assert {number for averages in seen.values() for number, _, _ in averages} == {0, 1}


class Lossy:
    """A transport that loses messages of averages after their sender was told that they were taken."""

    def __init__(self, transport: LocalTransport, share: float, seed: int) -> None:
        self._transport, self._share = transport, share
        self._random = random.Random(f"{seed}/{transport.rank}")
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def isend(self, peer: int, tag: int, data: memoryview, **options: Any) -> Any:
        if unpack(data).kind is Kind.PAIR and self._random.random() < self._share:
            self.lost += 1
            return SimpleNamespace(peer=peer, done=lambda: True, wait=lambda _=None: 0, cancel=lambda: None)
        return self._transport.isend(peer, tag, data, **options)


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_requests_and_answers_cost_time_and_move_no_mean(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydec.gossip.base._MIN_BUCKET_ELEMENTS", 8)  # several buckets
    paces, steps = [0.5, 3.0, 1.0, 0.9], 30

    def program(transport: LocalTransport) -> tuple[Vector, NDArray[np.float64], int, int]:
        lossy: Any = Lossy(transport, 0.2, seed)
        rank = transport.rank
        x, added, exchange = average(lossy, paces[rank], steps, 0.01, graph=["ring", "complete"][seed % 2])
        return x, added, exchange.averages, lossy.lost

    faults: dict[str, Any] = {"delay_s": (0.0, 0.2), "duplicate": 0.1 * (seed % 3)}
    results = LocalCluster(4, seed, deadline_s=16.0, **faults).run(program)
    expected = np.mean([start(rank) + results[rank][1] for rank in range(4)], axis=0)
    np.testing.assert_allclose(np.mean([x for x, _, _, _ in results], axis=0), expected, atol=1e-5)
    assert sum(averages for _, _, averages, _ in results) >= 40
    assert sum(lost for _, _, _, lost in results) >= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rank_that_is_restarted_in_its_epoch_is_named_and_engages_nobody_for_ever(seed: int) -> None:
    errors: list[tuple[int, Exception]] = []
    before = 1 + 3 * seed  # steps: far fewer requests than LATE, and about as many

    def program(transport: LocalTransport) -> None:
        rank = transport.rank
        exchange = make(transport, start(rank))
        try:
            for step in range(400):
                if rank == 1 and step == before:
                    exchange.close()
                    _opened[transport] = itertools.count(exchange._tag)  # as in a new process
                    exchange = make(transport, start(7))
                exchange.begin(0)
                transport.sleep([1.0, 0.7, 1.3][rank])
                exchange.finish()
            exchange.flush()
        except Exception as error:
            errors.append((rank, error))
            raise

    with pytest.raises(PeerError):
        LocalCluster(3, seed, delay_s=(0.0, 0.1), deadline_s=40.0).run(program)
    rank, first = errors[0]
    assert isinstance(first, (ProtocolError, PeerTimeout))
    assert 1 in (rank, first.peer)
    assert "was it restarted? Restart all ranks" in str(first)


@pytest.mark.parametrize("a2cid2", [False, True])
def test_a_healthy_rank_never_waits_for_the_gradient_of_a_slow_partner(a2cid2: bool) -> None:
    steps, delay_s = 60, 0.01

    def program(transport: LocalTransport) -> tuple[float, int]:
        slow = transport.rank % 2 == 1  # on a ring of four, all neighbours of a healthy rank
        exchange = make(transport, start(transport.rank), a2cid2=a2cid2)
        waited_s, answered = 0.0, 0
        for _ in range(steps // 20 if slow else steps):
            for call, pace_s in ((lambda: exchange.begin(0), 20.0 if slow else 1.0), (exchange.finish, 0.0)):
                asked_s = transport.now()
                call()
                waited_s += transport.now() - asked_s
                transport.sleep(pace_s)
            answered += exchange.settled()  # what began with this step is over
        exchange.begin(0)
        exchange.finish()
        exchange.flush()
        return waited_s, answered

    results = LocalCluster(4, delay_s=delay_s, deadline_s=500.0).run(program)
    assert [waited_s for waited_s, _ in results] == [0.0] * 4
    assert [answered for _, answered in results[::2]] == [steps] * 2


def test_a_rank_that_is_gone_takes_only_its_own_part_along() -> None:
    results: dict[int, tuple[Vector, int]] = {}

    def program(transport: LocalTransport) -> None:
        if transport.rank == 1:
            transport.sleep(0.5)
            raise ArithmeticError("killed")
        x, _, exchange = average(transport, 1.0, 60, graph="complete")
        results[transport.rank] = x, exchange.averages

    with pytest.raises(ArithmeticError, match="killed"):
        LocalCluster(4, 1, delay_s=(0.0, 0.4)).run(program)
    assert len(results) == 3
    models = np.stack([x for x, _ in results.values()])
    np.testing.assert_allclose(models, np.broadcast_to(models.mean(0), models.shape), atol=1e-3)
    assert min(averages for _, averages in results.values()) > 20


@pytest.mark.parametrize("paces", ["equal", "1:4"])
def test_momentum_agrees_faster_on_a_ring_and_keeps_the_mean(paces: str) -> None:
    size = 16

    def distance(a2cid2: bool) -> float:
        def program(transport: LocalTransport) -> Vector:
            pace_s = 1.0 if paces == "equal" or transport.rank % 4 else 4.0
            return average(transport, pace_s, int(60 / pace_s), a2cid2=a2cid2)[0]

        models = np.stack(LocalCluster(size, 2, delay_s=(0.0, 0.1)).run(program)).astype(np.float64)
        mean = np.mean([start(rank) for rank in range(size)], axis=0)
        np.testing.assert_allclose(models.mean(0), mean, atol=1e-5)
        return float(np.linalg.norm(models - mean))

    assert distance(True) < 0.3 * distance(False)


@pytest.mark.parametrize(
    ("algorithm", "graph", "words"),
    [
        ("ad-psgd", "exponential", "needs a symmetric graph"),
        ("ad-psgd", "one-peer-hypercube", "keeps its neighbours for the whole run"),
        ("ad-psgd:a2cid2=true", "complete", "gains nothing where all are neighbours of all"),
    ],
)
def test_graphs_that_cannot_work_are_refused(algorithm: str, graph: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        gossip.make(algorithm).check(topology.make(graph, size=8), compress.make("none"))


def test_momentum_is_refused_for_adam() -> None:
    adam = LocalOptimizer("Adam", sgd=False, adaptive=True)
    gossip.make("ad-psgd").check_local(adam)
    with pytest.raises(
        ConfigError, match="made for SGD, with or without momentum, and does not hold for Adam"
    ):
        gossip.make("ad-psgd:a2cid2=true").check_local(adam)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"flags": 8}, "flags 8"),
        ({"flags": 6}, "flags 6"),  # an answer claims nothing
        ({"kind": Kind.LATEST}, "LATEST packet"),
        ({"count": 3}, "count is 3"),
        ({"round": SEEN + WINDOW + 1}, f"after {SEEN}, more than {WINDOW} ahead"),
        ({"round": SEEN - LATE - 1}, f"after {SEEN}, more than {LATE} behind: was it restarted"),
    ],
)
def test_a_wrong_message_names_the_peer(fields: dict[str, Any], words: str) -> None:
    def program(transport: LocalTransport) -> None:
        x = np.zeros(N, np.float32)
        exchange = make(transport, x)
        if transport.rank == 0:
            exchange._heard[1].sequence = SEEN
        else:
            wanted: dict[str, Any] = {"kind": Kind.PAIR, "flags": 1, "count": N, "round": SEEN + 1, **fields}
            wanted.setdefault("wire_id", compress.make("none").wire_id)
            frame = Frame(sender=1, bucket=0, buckets=1, offset=0, length=4 * N, **wanted)
            message = bytearray(HEADER_BYTES + 4 * N)
            pack_into(message, frame)
            transport.isend(0, exchange._tag, memoryview(message))
            transport.sleep(5.0)
            return
        exchange.begin(0)
        transport.sleep(1.0)
        with pytest.raises(ProtocolError, match=words) as caught:
            exchange.finish()
        assert caught.value.peer == 1

    LocalCluster(2).run(program)
