"""The exact mean at the end, the estimated distance on the way, and the rounds that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, topology
from pydec.errors import ConfigError
from pydec.gossip.control import controls

Run = Callable[..., list[Any]]
D = 40


def start(rank: int) -> torch.Tensor:
    return torch.randn(D, generator=torch.Generator().manual_seed(rank))


def optimizer(peer: Any, lr: float = 0.0, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    x = nn.Parameter(start(peer.rank).to(dtype))
    opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=lr), peer, init="keep", **options)
    x.grad = torch.zeros_like(x)
    return x, opt


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 8])
@pytest.mark.parametrize(
    ("algorithm", "graph"),
    [("dpsgd:order=cta", "one-peer-exponential"), ("sgp", "ring"), ("gossip-diloco", "ring")],
)
def test_merging_gives_every_rank_the_mean(run_peers: Run, size: int, algorithm: str, graph: str) -> None:
    def program(peer: Any) -> tuple[torch.Tensor, float, torch.Tensor]:
        x, opt = optimizer(peer, algorithm=algorithm, topology=graph)
        opt.merge()
        merged, distance = x.detach().clone(), opt.consensus_distance()
        for _ in range(2):
            opt.step()
        opt.merge()
        opt.merge()
        opt.close()
        return merged, distance, x.detach().clone()

    mean = torch.stack([start(rank) for rank in range(size)]).mean(0)
    for merged, distance, later in run_peers(size, program):
        torch.testing.assert_close(merged, mean, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(later, mean, atol=1e-6, rtol=1e-6)
        assert distance < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_merging_other_types(run_peers: Run, dtype: torch.dtype) -> None:
    def program(peer: Any) -> torch.Tensor:
        x, opt = optimizer(peer, dtype=dtype, algorithm="dpsgd:order=atc", topology="ring")
        opt.merge()
        return x.detach().clone()

    mean = torch.stack([start(rank).to(dtype) for rank in range(5)]).double().mean(0)
    for x in run_peers(5, program):
        torch.testing.assert_close(x.double(), mean, atol=1e-6 if dtype is torch.float64 else 0.03, rtol=0)


def spread(size: int) -> float:
    x = np.stack([start(rank).numpy() for rank in range(size)]).astype(np.float64)
    return float(np.sqrt(np.square(x - x.mean(0)).sum(1).mean()))


@pytest.mark.parametrize("size", [4, 8, 16])
def test_what_a_period_of_pairs_moves_is_the_distance_before_it(run_peers: Run, size: int) -> None:
    def program(peer: Any) -> float:
        _, opt = optimizer(peer, algorithm="dpsgd:order=atc", topology="one-peer-exponential", estimate=True)
        for _ in range(opt.topology.finite_time):
            opt.step()
        return opt.consensus_estimate

    # Its mean over the ranks is exact from the first round on; each rank's own needs some rounds.
    estimates = np.array(run_peers(size, program))
    assert np.sqrt(np.square(estimates).mean()) == pytest.approx(spread(size), rel=1e-5)


@pytest.mark.parametrize("graph", ["ring", "complete", "exponential"])
def test_on_static_graphs_the_estimate_bounds_the_distance(run_peers: Run, graph: str) -> None:
    size = 8

    def program(peer: Any) -> float:
        _, opt = optimizer(peer, algorithm="dpsgd:order=atc", topology=graph, estimate=True)
        opt.step()
        return opt.consensus_estimate

    estimate = np.sqrt(np.square(run_peers(size, program)).mean())
    w = topology.make(graph, size=size).weights(0)
    least = np.linalg.svd(np.eye(size) - w, compute_uv=False)[-2]
    assert spread(size) <= estimate * (1 + 1e-6)
    assert estimate <= spread(size) * np.linalg.norm(np.eye(size) - w, 2) / least


@pytest.mark.parametrize(
    ("algorithm", "graph"),
    [
        ("dpsgd:order=atc", "ring"),
        ("dpsgd", "one-peer-exponential"),
        ("dpsgd:order=atc", "random-matching"),
        ("exact-diffusion", "base-k:k=1"),
        ("momentum-tracking", "ring"),
        ("qg-dsgdm", "ring"),
    ],
)
def test_in_training_all_ranks_estimate_about_the_distance_after_the_local_step(
    run_peers: Run, algorithm: str, graph: str
) -> None:
    def program(peer: Any) -> tuple[float, float]:
        x, opt = optimizer(peer, 0.05, algorithm=algorithm, topology=graph, estimate=True)
        noise = torch.Generator().manual_seed(peer.rank)
        estimates, distances = [], []
        for step in range(80):
            x.grad = x.detach() + torch.randn(D, generator=noise)
            opt.step()
            if step >= 40:
                estimates.append(opt.consensus_estimate)
                distances.append(opt.consensus_distance())
        opt.close()
        return float(np.mean(estimates)), float(np.mean(distances))

    results = np.array(run_peers(8, program))
    assert results[:, 0].std() < 0.2 * results[:, 0].mean()
    assert 0.5 < results[:, 0].mean() / results[:, 1].mean() < 8.0


def test_nothing_is_estimated_unless_asked_for(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        _, opt = optimizer(peer)
        with pytest.raises(ConfigError, match="estimate=True"):
            _ = opt.consensus_estimate

    run_peers(1, program)


def rounds_per_step(
    peer: Any, mixing: str, rates: list[float], graph: str, falls_on: Any = None
) -> list[int]:
    x, opt = optimizer(peer, rates[0], algorithm="dpsgd:order=atc", topology=graph, mixing=mixing)
    seen = []
    for lr in rates:
        opt.param_groups[0]["lr"] = lr if falls_on is None or peer.rank == falls_on else rates[0]
        x.grad = 0.1 * x.detach()
        before = opt.rounds
        opt.step()
        seen.append(opt.rounds - before)
    return seen


@pytest.mark.parametrize("graph", ["ring", "one-peer-exponential", "random-matching", "exponential"])
@pytest.mark.parametrize("falls_on", [None, 2])
def test_adaptive_mixing_does_more_early_and_after_a_fall_on_all_ranks_alike(
    run_peers: Run, graph: str, falls_on: Any
) -> None:
    rates = [0.1] * 60 + [0.01] * 60  # on one rank alone if falls_on is given: all follow it
    results = run_peers(
        6,
        lambda peer: rounds_per_step(peer, "adaptive:rounds=3,early=5,after=12", rates, graph, falls_on),
    )
    seen = results[0]
    assert all(other == seen for other in results)
    assert seen[:5] == [3] * 5
    assert seen[50:60] == [1] * 10
    assert max(seen[60:]) == 3
    assert seen[-5:] == [1] * 5


def test_a_target_adds_rounds_while_models_are_too_far_apart(run_peers: Run) -> None:
    mixing = "adaptive:rounds=4,early=0,target=0.001"
    results = run_peers(4, lambda peer: rounds_per_step(peer, mixing, [0.1] * 30, "ring"))
    assert all(other == results[0] for other in results)
    assert results[0][0] == 1
    assert max(results[0]) > 1


def test_fixed_mixing_runs_that_many_rounds(run_peers: Run) -> None:
    def program(peer: Any) -> torch.Tensor:
        x, opt = optimizer(peer, algorithm="dpsgd:order=atc", topology="base-k:k=1", mixing="fixed:rounds=4")
        assert opt.topology.finite_time == 4
        opt.step()
        return x.detach().clone()

    mean = torch.stack([start(rank) for rank in range(6)]).mean(0)
    for x in run_peers(6, program):
        torch.testing.assert_close(x, mean, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        "fixed:rounds=0",
        "adaptive:rounds=1",
        "adaptive:early=-1",
        "adaptive:fall=1",
        "adaptive:target=-1",
        "often",
    ],
)
def test_wrong_mixing_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        controls.make(spec)
