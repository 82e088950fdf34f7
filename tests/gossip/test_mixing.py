"""The mixers against their equations in NumPy, over real exchanges in a local cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.errors import ConfigError
from pydec.gossip.exchange import Exchange

N = 5000


def start(size: int, n: int = N) -> NDArray[np.float32]:
    return np.random.default_rng(size).standard_normal((size, n)).astype(np.float32)


def gossiping(
    algorithm: str, compressor: str, graph: str, rounds: int, x: NDArray[np.float32]
) -> Callable[[Transport], NDArray[np.float32]]:
    """A program that gossips for some rounds and returns this rank's vector."""

    def program(transport: Transport) -> NDArray[np.float32]:
        schedule = topology.make(graph, size=transport.size, seed=3)
        part, chosen = compress.make(compressor), gossip.make(algorithm)
        chosen.check(schedule, part)
        mine = x[transport.rank].copy()
        exchange = Exchange(
            transport, schedule, [chosen.mixer(mine, part, schedule.degree)], budget=chosen.budget
        )
        for t in range(rounds):
            exchange.begin(t)
            exchange.finish()
        exchange.flush()
        return mine

    return program


@pytest.mark.parametrize(
    "graph", ["ring", "complete", "exponential", "one-peer-exponential", "base-k:k=1", "random-matching"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_uncompressed_dpsgd_is_the_mixing_matrix(graph: str, size: int) -> None:
    x = start(size)
    got = np.stack(LocalCluster(size).run(gossiping("dpsgd", "none", graph, 4, x)))
    schedule = topology.make(graph, size=size, seed=3)
    expected = x.astype(np.float64)
    for t in range(4):
        expected = schedule.weights(t) @ expected
    np.testing.assert_allclose(got, expected, atol=2e-6)


@pytest.mark.parametrize("graph", ["ring", "one-peer-exponential", "base-k:k=1"])
def test_quantised_dpsgd_keeps_the_mean_and_comes_together(graph: str) -> None:
    x = start(6)
    got = np.stack(LocalCluster(6).run(gossiping("dpsgd", "int8", graph, 30, x)))
    np.testing.assert_allclose(got.mean(0), x.mean(0), atol=1e-5)
    scale = np.abs(x).max() / 127
    assert np.abs(got - got.mean(0)).max() < 2 * scale


def test_quantised_dpsgd_is_its_equation() -> None:
    x = start(4)
    got = np.stack(LocalCluster(4).run(gossiping("dpsgd", "int8", "ring", 1, x)))
    part = compress.make("int8")
    q = np.stack([part.decode(part.encode(row), np.empty_like(row)) for row in x]).astype(np.float64)
    w = topology.make("ring", size=4).weights(0)
    np.testing.assert_allclose(got, x + w @ q - q, atol=2e-6)


@pytest.mark.parametrize(("compressor", "gamma"), [("none", 1.0), ("int8", 0.9), ("topk:fraction=0.1", 0.3)])
def test_choco_is_its_equations(compressor: str, gamma: float) -> None:
    size, rounds = 5, 6
    x = start(size)
    got = np.stack(LocalCluster(size).run(gossiping(f"choco:gamma={gamma}", compressor, "ring", rounds, x)))
    part, ring = compress.make(compressor), topology.make("ring", size=size)
    model, estimate, mixed = x.copy(), np.zeros_like(x), np.zeros_like(x)
    up, down = np.float32(gamma), np.float32(-gamma)
    for t in range(rounds):
        q = np.stack([part.decode(part.encode(row), np.empty_like(row)) for row in model - estimate])
        for rank in range(size):
            _, heard = ring.row(rank, t)
            mixed[rank] += np.float32(1.0 - sum(heard.values())) * q[rank]
            for peer, weight in heard.items():
                mixed[rank] += np.float32(weight) * q[peer]
        estimate += q
        model = (model + up * mixed) + down * estimate
    np.testing.assert_array_equal(got, model)


@pytest.mark.parametrize(
    ("compressor", "rounds"),
    [
        ("none", 60),
        ("bf16", 60),
        ("fp16", 60),
        ("fp8", 60),
        ("int8", 60),
        ("int8:rounding=stochastic", 60),
        ("int4", 60),
        ("int4:rounding=stochastic", 120),
        ("int2", 350),
        ("sign", 1000),
        ("topk:fraction=0.1", 300),
        ("block-topk:fraction=0.1", 300),
        ("threshold:fraction=0.25", 300),
        ("randk:fraction=0.25", 300),
    ],
)
def test_choco_converges_linearly_with_its_default_step(compressor: str, rounds: int) -> None:
    x = start(8, 500)
    got = np.stack(LocalCluster(8).run(gossiping("choco", compressor, "ring", rounds, x)))
    before, after = (np.linalg.norm(y - x.mean(0)) for y in (x, got))
    # Linear: the second half of the rounds gains much of what the first has, until rounding is reached.
    half = np.stack(LocalCluster(8).run(gossiping("choco", compressor, "ring", rounds // 2, x)))
    assert after < max(1e-5, (np.linalg.norm(half - x.mean(0)) / before) ** 1.3) * before
    np.testing.assert_allclose(got.mean(0), x.mean(0), atol=1e-4)


def test_choco_refuses_a_compressor_that_contracts_nothing() -> None:
    ring, random = topology.make("ring", size=4), compress.make("int2:rounding=stochastic")
    with pytest.raises(ConfigError, match="choco has no step size for Int2"):
        gossip.make("choco").check(ring, random)
    with pytest.raises(ConfigError, match="grow without bound"):
        gossip.make("choco:gamma=0.1").check(ring, compress.make("randk:unbiased=true"))


def test_choco_refuses_a_graph_that_changes() -> None:
    with pytest.raises(ConfigError, match="must not change"):
        gossip.make("choco").check(topology.make("one-peer-exponential", size=4), compress.make("int8"))


def test_dpsgd_refuses_a_compressor_that_drops_the_model() -> None:
    with pytest.raises(ConfigError, match="choco"):
        gossip.make("dpsgd").check(topology.make("ring", size=4), compress.make("topk:fraction=0.01"))


def test_allreduce_refuses_compression_and_mixers() -> None:
    algorithm = gossip.make("allreduce")
    with pytest.raises(ConfigError, match="compressor"):
        algorithm.check(topology.make("ring", size=4), compress.make("int8"))
    with pytest.raises(ConfigError, match="no gossip mixer"):
        algorithm.mixer(np.zeros(1, np.float32), compress.make("none"), 1)


@pytest.mark.parametrize(
    "spec", ["choco:gamma=0", "choco:gamma=2", "dpsgd:order=both", "choco:order=x", "gossip"]
)
def test_wrong_options_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        gossip.make(spec)


@pytest.mark.parametrize("name", gossip.algorithms)
def test_every_algorithm_is_described(name: str) -> None:
    assert gossip.algorithms.summary(name)
    assert gossip.make(name).budget in (2, 3, 4)
