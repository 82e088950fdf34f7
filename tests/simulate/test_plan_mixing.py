from __future__ import annotations

import numpy as np
import pytest

from pydec import topology
from pydec.errors import ConfigError
from pydec.simulate import plan_mixing
from pydec.simulate.plan_mixing import mixing, rounds_of


def settled(graph: topology.Topology, rounds: int, columns: int) -> float:
    """Mean squared distance to the mean, over that of one disturbance, of the recursion itself."""
    n, draw = graph.size, np.random.default_rng(0)
    x, found = np.zeros((n, columns)), []
    for number in range(rounds):
        x = graph.weights(number) @ x + draw.standard_normal((n, columns))
        if number > rounds // 4:
            found.append(np.mean((x - x.mean(axis=0)) ** 2))
    return float(np.mean(found)) / (1 - 1 / n)


@pytest.mark.parametrize(
    "name", ["one-peer-exponential", "base-k", "ring", "torus", "random-matching", "star"]
)
@pytest.mark.parametrize("n", [6, 25])
def test_the_gain_is_what_the_recursion_settles_at(name, n):
    if name == "torus" and n == 25:
        n = 24
    graph = topology.make(name, size=n)
    assert mixing(graph).gain == pytest.approx(settled(graph, 1500, 40), rel=0.08)


@pytest.mark.parametrize("name", ["one-peer-exponential", "exponential", "base-k", "ou-equidyn"])
def test_sampled_vectors_say_what_matrices_do(name, monkeypatch):
    graph = topology.make(name, size=200)
    exact = mixing(graph)
    monkeypatch.setattr(plan_mixing, "EXACT_PEERS", 0)
    assert mixing(graph).gain == pytest.approx(exact.gain, rel=0.02)


def test_what_is_known_exactly():
    assert mixing(topology.make("complete", size=50)).gain == 1.0
    assert mixing(topology.make("complete", size=50)).rounds_to(1e-6) == 1
    for n in (4, 16, 64):
        found = mixing(topology.make("one-peer-exponential", size=n))
        # Each round halves what is left: sum of 2^-k - 1/n over k, by 1 - 1/n, until the mean after log2 n.
        expected = sum(2.0**-k - 1 / n for k in range(n.bit_length())) / (1 - 1 / n)
        assert found.gain == pytest.approx(expected, rel=1e-9)
        assert found.rounds_to(1e-9) == n.bit_length() - 1
    ring = topology.make("ring", size=12)
    values = np.linalg.eigvalsh(ring.weights(0))[:-1]
    assert mixing(ring).gain == pytest.approx(np.mean(1 / (1 - values**2)))


def test_rounds_beyond_those_that_were_followed_come_from_the_spectrum():
    ring = topology.make("ring", size=64)
    rounds = mixing(ring).rounds_to(1e-3)
    values = np.linalg.eigvalsh(ring.weights(0))[:-1]
    assert np.mean(values ** (2 * rounds)) <= 1e-6 < np.mean(values ** (2 * (rounds - 1)))


def test_graphs_that_mix_too_slowly_say_so():
    found = mixing(topology.make("ring", size=2000), most_rounds=20)
    assert not found.settled
    assert found.rounds_to(1e-3) is None
    assert found.gain == pytest.approx(sum(found.left))


def test_rounds_of_a_period_are_computed_once_and_repeat():
    graph = topology.make("one-peer-exponential", size=8)
    rounds = rounds_of(graph)
    first = [next(rounds) for _ in range(3)]
    assert [next(rounds) for _ in range(3)] == first
    x = np.arange(8.0)[:, None]
    for number, one in enumerate(first):
        np.testing.assert_allclose(one.apply(x), graph.weights(number) @ x)


def test_a_round_with_too_many_messages_is_refused_before_it_is_made():
    with pytest.raises(ConfigError, match="messages, more than the 4,194,304"):
        next(rounds_of(topology.make("complete", size=50_000)))
