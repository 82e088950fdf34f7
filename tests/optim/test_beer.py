"""BEER with real compressors: its equations, its fixed point, its invariant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress, topology

Run = Callable[..., list[Any]]
D, PADDED = 6, 16  # a tensor of 6 elements fills a cache line of 16


def simulate(
    problem: Any, rates: list[float], size: int, compressor: str, gamma: float
) -> NDArray[np.float64]:
    """X <- X + gamma (W - I) H - eta V; V <- V + gamma (W - I) G + grad+ - grad; H, G by differences."""
    part, matrix = compress.make(compressor), topology.make("ring", size=size).weights(0)

    def packets(x: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = x.astype(np.float32)
        return np.stack([part.decode(part.encode(row), np.empty_like(row)) for row in rows])

    x, h, v, g, old = (np.zeros((size, PADDED)) for _ in range(5))
    lazy, path = gamma * (matrix - np.eye(size)), []
    for eta in rates:
        new = np.pad(problem.gradient(x[:, :D]), ((0, 0), (0, PADDED - D)))
        v, old = v + lazy @ g + new - old, new
        x = x + lazy @ h - eta * v
        h = h + packets(x - h)
        g = g + packets(v - g)
        path.append(x[:, :D])
    return np.stack(path)


@pytest.mark.parametrize(("compressor", "gamma"), [("int8", 0.8), ("topk:fraction=0.2", 0.3)])
def test_trajectories_are_those_of_the_equations(
    paths: Any, quadratics: Any, compressor: str, gamma: float
) -> None:
    size, problem, rates = 5, quadratics(5), [0.05] * 12
    options = {"algorithm": f"beer:gamma={gamma}", "topology": "ring", "compressor": compressor}
    got = paths(size, problem, rates, **options)
    np.testing.assert_allclose(got, simulate(problem, rates, size, compressor, gamma), atol=2e-5)


@pytest.mark.parametrize("compressor", ["int4", "topk:fraction=0.2", "randk:fraction=0.25"])
def test_compression_and_different_data_leave_the_fixed_point_exact(
    paths: Any, quadratics: Any, compressor: str
) -> None:
    size, problem = 5, quadratics(5)
    options = {"algorithm": "beer", "topology": "ring", "compressor": compressor}
    got = paths(size, problem, [0.06] * 350, **options)
    np.testing.assert_allclose(got[-1], np.tile(problem.optimum, (size, 1)), atol=1e-4)


def test_the_trackers_add_up_to_the_gradients_whatever_is_lost(
    run_peers: Run, quadratics: Any, train: Any
) -> None:
    size, problem, rates = 6, quadratics(6), [0.05] * 25

    def probe(opt: Any) -> Any:
        rule = opt._rounds.parts[0].rule
        return [vector[:D].astype(np.float64) for vector in (rule.tracker, rule.previous)]

    options = {"algorithm": "beer", "topology": "ring", "compressor": "topk:fraction=0.2"}
    results = run_peers(size, lambda peer: train(peer, problem, rates, probe, **options))
    for t in range(len(rates)):
        tracker, gradient = (sum(result[1][t][k] for result in results) for k in (0, 1))
        np.testing.assert_allclose(tracker, gradient, atol=1e-5)
