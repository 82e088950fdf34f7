"""CHOCO with copies per neighbour: its equations bit by bit, the mean, consensus on graphs that change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.errors import ConfigError
from pydec.gossip.exchange import Exchange

GRAPHS = ["one-peer-exponential", "base-k:k=1", "random-matching"]
Vectors = NDArray[np.float32]


def start(size: int, n: int) -> Vectors:
    return np.random.default_rng(size).standard_normal((size, n)).astype(np.float32)


def run(graph: str, compressor: str, rounds: int, x: Vectors, gamma: str = "", order: str = "atc") -> Vectors:
    def program(transport: Transport) -> Any:
        schedule = topology.make(graph, size=transport.size, seed=3)
        part, chosen = compress.make(compressor), gossip.make(f"choco-peers:order={order}{gamma}")
        chosen.check(schedule, part)
        mine = x[transport.rank].copy()
        exchange = Exchange(transport, schedule, [chosen.mixer(mine, part, schedule.degree)])
        for t in range(rounds):
            exchange.run(t)
        exchange.flush()
        return mine

    return np.stack(LocalCluster(len(x)).run(program))


def simulated(graph: str, compressor: str, rounds: int, x: Vectors, gamma: float) -> Vectors:
    """The class's equations, one copy for every directed link."""
    size, schedule, part = len(x), topology.make(graph, size=len(x), seed=3), compress.make(compressor)
    x, copies = x.copy(), np.zeros((size, size, x.shape[1]), np.float32)
    for t in range(rounds):
        links = [(i, k) for i in range(size) for k in schedule.listeners(i, t)]
        for i, k in links:
            difference = x[i] - copies[i, k]
            copies[i, k] += part.decode(part.encode(difference), np.empty_like(difference))
        before = x.copy()
        for j, i in links:
            (k,) = schedule.listeners(i, t)
            step = np.float32(gamma * schedule.weights(t)[i, j])
            x[i] = (before[i] + step * copies[j, i]) + (-step) * copies[i, k]
    return x


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("compressor", ["none", "topk:fraction=0.1", "sign"])
def test_it_is_its_equations(graph: str, compressor: str) -> None:
    x = start(5, 700)
    got = run(graph, compressor, 12, x, gamma=",gamma=0.3")
    np.testing.assert_array_equal(got, simulated(graph, compressor, 12, x, 0.3))


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    ("compressor", "n", "rounds"),
    [("topk:fraction=0.1", 200, 400), ("sign", 32, 900), ("int8", 200, 60), ("auto:send=packed", 200, 60)],
)
def test_the_mean_stays_and_all_agree_on_it(graph: str, compressor: str, n: int, rounds: int) -> None:
    x = start(6, n)
    got = run(graph, compressor, rounds, x)
    np.testing.assert_allclose(got.mean(0), x.mean(0), atol=2e-5)
    assert np.linalg.norm(got - x.mean(0)) < 1e-3 * np.linalg.norm(x - x.mean(0))


def test_many_buckets_have_the_bits_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = start(4, 20_000)
    whole = run("one-peer-exponential", "int8", 6, x)
    monkeypatch.setattr("pydec.gossip.base.BUCKET_ELEMENTS", 4096)
    np.testing.assert_array_equal(run("one-peer-exponential", "int8", 6, x), whole)


@pytest.mark.parametrize(("graph", "copies"), [("one-peer-exponential", 6), ("random-matching", 14)])
def test_memory_is_two_vectors_for_every_rank_met(graph: str, copies: int) -> None:
    schedule = topology.make(graph, size=8, seed=0)
    mixer = gossip.make("choco-peers").mixer(np.zeros(64, np.float32), compress.make("int8"), 1)
    mixer.place(3, schedule)
    assert len(mixer.state()) == copies
    assert mixer.state_bytes == 4 * 64 * (copies + 1)  # and one bucket's difference


def test_what_cannot_work_is_refused_with_the_way_out() -> None:
    part, algorithm = compress.make("int8"), gossip.make("choco-peers")
    with pytest.raises(ConfigError, match=r"a rank hears 2 on ring; use one-peer.*algorithm='choco'"):
        algorithm.check(topology.make("ring", size=5), part)
    with pytest.raises(ConfigError, match="no step size for RandK"):
        algorithm.check(topology.make("base-k", size=5), compress.make("randk:unbiased=true,fraction=0.1"))
    with pytest.raises(ConfigError, match=r"choco-peers.gamma must be in \(0, 1\], got 2.0"):
        gossip.make("choco-peers:gamma=2")
    with pytest.raises(ConfigError, match="algorithm='choco-peers'"):
        gossip.make("choco").check(topology.make("base-k", size=5), part)
