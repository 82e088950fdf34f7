"""PowerGossip against NumPy on whole matrices; the mean, both ends of an edge, bytes, warm starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pydec import DecentralizedOptimizer, compress, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.gossip.exchange import Exchange
from pydec.gossip.powergossip import PowerMixer

Run = Callable[..., list[Any]]
SHAPE = (24, 20)


def mixing(
    x: NDArray[np.float32], graph: str, rounds: int, tensors: Any = ((0, *SHAPE),)
) -> list[tuple[list[NDArray[np.float32]], PowerMixer, int]]:
    """Every rank's path over some rounds, its mixer and the bytes of its largest packet."""

    def program(transport: Transport) -> tuple[list[NDArray[np.float32]], PowerMixer, int]:
        schedule, mine = topology.make(graph, size=transport.size), x[transport.rank].copy()
        mixer = PowerMixer(mine, compress.make("none"), schedule.degree)
        mixer.arrange(tensors)
        exchange = Exchange(transport, schedule, [mixer])
        path = []
        for t in range(rounds):
            exchange.begin(t)
            exchange.finish()
            path.append(mine.copy())
        exchange.close()
        return path, mixer, mixer.capacity(0)

    return LocalCluster(len(x)).run(program)


def simulate(x: Any, graph: str, rounds: int, start: dict[Any, Any]) -> NDArray[np.float64]:
    """p = (X_i - X_j) q / |q|; X_i -= w p q^T / |q|; X_j += the same; then with q = (X_i - X_j)^T p / |p|."""
    size = len(x)
    w, models, path = topology.make(graph, size=size).weights(0), x.reshape(size, *SHAPE).astype(float), []
    edges = [(i, j) for i in range(size) for j in range(i + 1, size) if w[i, j]]
    p, q = ({edge: start[edge][k].astype(float) for edge in edges} for k in (0, 1))
    for t in range(rounds):
        new = models.copy()
        for i, j in edges:
            difference = models[i] - models[j]
            if t % 2 == 0:
                q[i, j] = q[i, j] / np.linalg.norm(q[i, j])
                p[i, j] = difference @ q[i, j]
            else:
                p[i, j] = p[i, j] / np.linalg.norm(p[i, j])
                q[i, j] = difference.T @ p[i, j]
            move = w[i, j] * np.outer(p[i, j], q[i, j])
            new[i] -= move
            new[j] += move
        models = new
        path.append(models.reshape(size, -1))
    return np.stack(path)


def start(size: int, n: int) -> NDArray[np.float32]:
    return np.random.default_rng(size).standard_normal((size, n)).astype(np.float32)


@pytest.mark.parametrize(("graph", "size"), [("ring", 5), ("complete", 4), ("star", 4), ("chain", 2)])
def test_trajectories_are_those_of_the_equations(graph: str, size: int) -> None:
    x = start(size, SHAPE[0] * SHAPE[1])
    first = mixing(x, graph, 0)
    drawn = {
        (rank, peer): (mixer.left[peer], mixer.right[peer])
        for rank, (_, mixer, _) in enumerate(first)
        for peer in mixer.peers
        if rank < peer
    }
    got = np.stack([path for path, _, _ in mixing(x, graph, 12)], axis=1)
    np.testing.assert_allclose(got, simulate(x, graph, 12, drawn), atol=3e-5)


def test_the_mean_stays_ranks_come_together_and_both_ends_hold_the_same_bits() -> None:
    size, n = 6, 24 * 20 + 16
    tensors = ((0, 24, 20), (24 * 20, 10, 1))  # a bias, which travels as it is
    x = start(size, n)
    x[:, 24 * 20 + 10 :] = 0.0  # padding
    results = mixing(x, "ring", 160, tensors)
    got = np.stack([path[-1] for path, _, _ in results])
    np.testing.assert_allclose(got.mean(0), x.mean(0), atol=2e-6)
    spread = np.linalg.norm(x - x.mean(0))
    assert np.linalg.norm(got - got.mean(0)) < 0.05 * spread
    assert np.linalg.norm((got - got.mean(0))[:, 24 * 20 :]) < 1e-4 * spread
    for rank, (_, mixer, _) in enumerate(results):
        for peer in mixer.peers:
            other = results[peer][1]
            np.testing.assert_array_equal(mixer.left[peer], other.left[rank])
            np.testing.assert_array_equal(mixer.right[peer], other.right[rank])


def test_a_difference_of_rank_one_is_gone_along_its_direction_at_once() -> None:
    """Two ranks with weight 1/2 and a difference u v^T: from the second round on every step is exact."""
    u, v = (np.random.default_rng(k).standard_normal(size) for k, size in ((1, 24), (2, 20)))
    common = start(1, 24 * 20)[0]
    x = np.stack([common, common + np.outer(u, v).ravel().astype(np.float32)])
    paths = np.stack([path for path, _, _ in mixing(x, "complete", 2)], axis=1)
    np.testing.assert_allclose(paths[-1], np.tile(x.mean(0), (2, 1)), atol=1e-5)


def test_warm_starts_follow_a_difference_that_stays() -> None:
    """After some rounds the directions are the leading singular ones, so a round takes the largest part."""
    size = 2
    random = np.random.default_rng(0)
    basis = [np.linalg.qr(random.standard_normal((k, 12)))[0] for k in SHAPE]
    difference = basis[0] @ np.diag(2.0 ** -np.arange(12)) @ basis[1].T
    x = np.stack([0 * difference, difference]).reshape(size, -1).astype(np.float32)
    path = np.stack([path for path, _, _ in mixing(x, "complete", 10)], axis=1)
    left = np.linalg.norm((path[:, 0] - path[:, 1]).reshape(10, -1), axis=1) / np.linalg.norm(difference)
    assert left[-1] < 0.1  # cold random directions would leave (1 - 1 / 20)^5, more than 0.7


def test_it_sends_one_thin_vector_for_each_matrix() -> None:
    ((_, _, n_bytes), *_) = mixing(start(3, 24 * 20 + 10), "ring", 1, ((0, 24, 20), (480, 10, 1)))
    assert n_bytes == compress.make("none").max_bytes(24 + 10)


@pytest.mark.parametrize("order", ["atc", "cta"])
def test_it_trains_layers_of_every_kind_and_keeps_the_mean(run_peers: Run, order: str) -> None:
    def program(peer: Any) -> tuple[NDArray[np.float32], list[tuple[int, int]], float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
        sgd = torch.optim.SGD(model.parameters(), lr=0.05)
        spec = f"powergossip:order={order}"
        opt = DecentralizedOptimizer(sgd, peer, topology="ring", algorithm=spec, model=model)
        random = torch.Generator().manual_seed(peer.rank)
        for _ in range(10):
            opt.zero_grad()
            model(torch.randn(4, 3, 6, 6, generator=random)).square().mean().backward()
            opt.step()
        opt.close()
        mixer: Any = opt._rounds.parts[0].rule.mixers[0] if opt._rounds else None
        shapes = [(matrix.rows, matrix.columns) for matrix in mixer._matrices]
        return opt._arenas[0].vector.copy(), shapes, opt.consensus_distance()

    results = run_peers(3, program)
    assert results[0][1] == [(8, 27), (5, 128)]
    assert 0 < results[0][2] < 0.5
    assert np.isfinite(results[0][0]).all()


def test_matrices_are_read_as_they_lie_in_memory(run_peers: Run) -> None:
    def program(peer: Any) -> list[tuple[int, int]]:
        parameters = [
            nn.Parameter(torch.zeros(6, 40).t()),  # 40 x 6, in memory 6 rows of 40
            nn.Parameter(torch.zeros(4, 3, 5, 5).to(memory_format=torch.channels_last)),
            nn.Parameter(torch.zeros(1, 30)),
            nn.Parameter(torch.zeros(())),
        ]
        opt = DecentralizedOptimizer(torch.optim.SGD(parameters, lr=0.1), peer, topology="ring")
        return [span.matrix for span in opt._arenas[0].spans]

    assert run_peers(1, program) == [[(6, 40), (4, 75), (30, 1), (1, 1)]]
