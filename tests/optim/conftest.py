"""A peer without signals or launcher, for programs of the local cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.comm.agree import agree
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.comm.view import View
from pydec.topology.base import Topology
from pydec.topology.schedule import Schedule, SparseRound

Matrix = NDArray[np.float64]
D = 6


@dataclass
class LocalPeer:
    """What DecentralizedOptimizer needs of a peer."""

    transport: Transport

    def __post_init__(self) -> None:
        self.rank, self.size = self.transport.rank, self.transport.size
        self.view = View(0, tuple(range(self.size)), seed=7)

    def check(self) -> None:
        """Nobody stops a test."""

    def agree(self, facts: Mapping[str, str]) -> None:
        """As the real peer."""
        agree(self.transport, facts)


@pytest.fixture
def run_peers() -> Callable[..., list[Any]]:
    """run_peers(size, program): results of program(peer) on every rank of a local cluster."""

    def run(size: int, program: Callable[[LocalPeer], Any]) -> list[Any]:
        def body(transport: Transport) -> Any:
            with torch.random.fork_rng():
                return program(LocalPeer(transport))

        return LocalCluster(size).run(body)

    return run


@pytest.fixture
def peer_of() -> Callable[[Transport], LocalPeer]:
    """peer_of(transport): for clusters with links and faults of their own."""
    return LocalPeer


class Quadratics:
    """f_i(x) = (x - b_i) A_i (x - b_i) / 2 with a diagonal A_i, one per rank; float32 data."""

    def __init__(self, size: int, *, curved: bool = True) -> None:
        random = np.random.default_rng(size)
        self.b = random.standard_normal((size, D)).astype(np.float32)
        self.a = np.ones((size, D), np.float32)
        if curved:
            self.a = random.uniform(0.5, 1.5, (size, D)).astype(np.float32)

    def gradient(self, x: Matrix) -> Matrix:
        return self.a * (x - self.b)

    @property
    def optimum(self) -> Matrix:
        a, b = self.a.astype(np.float64), self.b.astype(np.float64)
        return (a * b).sum(0) / a.sum(0)

    def loss(self, rank: int, x: torch.Tensor) -> torch.Tensor:
        a, b = torch.from_numpy(self.a[rank]), torch.from_numpy(self.b[rank])
        return 0.5 * (a * (x - b).square()).sum()


def _train(
    peer: Any,
    problem: Quadratics,
    rates: list[float],
    probe: Callable[[DecentralizedOptimizer], Any] | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    **options: Any,
) -> tuple[NDArray[np.float32], list[Any]]:
    """Every rank's trajectory, (steps, D), and what ``probe`` says after each step."""
    x = nn.Parameter(torch.zeros(D))
    opt = DecentralizedOptimizer(optimizer([x], lr=rates[0]), peer, **options)
    path, seen = [], []
    for lr in rates:
        opt.param_groups[0]["lr"] = lr
        opt.zero_grad()
        problem.loss(peer.rank, x).backward()
        opt.step()
        path.append(x.detach().numpy().copy())
        seen.append(probe(opt) if probe else None)
    return np.stack(path), seen


def _leaky(size: int) -> Topology:
    """Rank r sends to r + 1, even ranks also to r + 2; rank 0 also to all others. Equal shares."""
    sends = [{(r + 1) % size} | ({(r + 2) % size} if r % 2 == 0 else set()) for r in range(size)]
    sends[0] |= set(range(1, size))
    heard: list[dict[int, float]] = [{} for _ in range(size)]
    own = [1 / (1 + len(to)) for to in sends]
    for rank, to in enumerate(sends):
        for other in to - {rank}:
            heard[other][rank] = 1 / (1 + len(to))
    return Schedule("leaky", [SparseRound.from_rows(own, heard)], doubly_stochastic=False)


@pytest.fixture
def quadratics() -> Any:
    """The class of test problems."""
    return Quadratics


@pytest.fixture
def train() -> Any:
    """train(peer, problem, rates, probe, **options): one rank's trajectory and what ``probe`` saw."""
    return _train


@pytest.fixture
def paths(run_peers: Any) -> Any:
    """paths(size, problem, rates, **options): trajectories of all ranks, (steps, size, D)."""

    def follow(size: int, problem: Quadratics, rates: list[float], **options: Any) -> Matrix:
        results = run_peers(size, lambda peer: _train(peer, problem, rates, **options)[0])
        return np.stack(results, axis=1).astype(np.float64)

    return follow


@pytest.fixture
def leaky() -> Any:
    """leaky(size): a directed graph whose matrix has columns, but not rows, that sum to 1."""
    return _leaky
