"""Robust gossip around a torch optimiser: momentum, buffers, losses, warnings, who counts."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, gossip
from pydec.aggregate import Counts
from pydec.errors import ConfigError, HeterogeneityWarning, RobustnessWarning
from pydec.gossip.robust import robust_rules
from pydec.optim import local

D = 6


def settle(peer: Any, algorithm: str, steps: int = 80, **options: Any) -> Any:
    """Ranks' optima lie around 1; rank 0's are told by nobody: it is like the others."""
    x = nn.Parameter(torch.zeros(D))
    sgd = torch.optim.SGD([x], lr=0.05, momentum=0.9)
    opt = DecentralizedOptimizer(sgd, peer, algorithm=algorithm, iid=True, **options)
    target = 1 + 0.01 * torch.randn(D, generator=torch.Generator().manual_seed(peer.rank))
    for _ in range(steps):
        opt.zero_grad()
        loss = 0.5 * (x - target).square().sum()
        loss.backward()
        opt.judge(lambda: float(0.5 * (x.detach() - target).square().sum()))
        opt.step()
    return x.detach().numpy().copy(), opt


@pytest.mark.parametrize("name", [*robust_rules, "nnm+trimmed-mean"])
@pytest.mark.parametrize("compressor", ["none", "int8"])
def test_every_rule_trains(run_peers: Any, name: str, compressor: str) -> None:
    graph = "epidemic:s=4" if name == "rpel" else "complete"

    def program(peer: Any) -> Any:
        x, opt = settle(peer, f"{name}:f=1", topology=graph, compressor=compressor)
        return x, opt.left_out

    found = run_peers(6, program)
    np.testing.assert_allclose(np.stack([x for x, _ in found]), 1.0, atol=0.03)
    assert all(counts == Counts() for _, counts in found)


@pytest.mark.parametrize("order", ["atc", "cta"])
def test_without_liars_clipping_is_dpsgd(run_peers: Any, order: str) -> None:
    def run(algorithm: str) -> Any:
        return run_peers(4, lambda peer: settle(peer, f"{algorithm}order={order}", 10, topology="ring")[0])

    np.testing.assert_allclose(run("cs-plus:f=0,"), run("dpsgd:"), atol=1e-6)


def test_buffers_are_mixed_by_the_same_rule(run_peers: Any) -> None:
    def program(peer: Any) -> Any:
        model = nn.BatchNorm1d(3)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        opt = DecentralizedOptimizer(
            sgd, peer, model=model, algorithm="median:f=1", topology="complete", iid=True
        )
        with torch.no_grad():
            model.get_buffer("running_mean").fill_(1e6 if peer.rank == 2 else 1.0 + 0.1 * peer.rank)
        model(torch.randn(4, 3, generator=torch.Generator().manual_seed(peer.rank))).square().sum().backward()
        opt.step()
        return model.get_buffer("running_mean").numpy().copy()

    for mean in run_peers(5, program):
        assert np.abs(mean).max() < 2


def test_the_model_is_as_before_after_neighbours_were_judged(run_peers: Any) -> None:
    def program(peer: Any) -> None:
        x = nn.Parameter(torch.full((D,), float(peer.rank)))
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.0, momentum=0.9),
            peer,
            algorithm="ubar:f=1,rho=0.5",
            topology="complete",
            iid=True,
            init="keep",
        )
        seen = []

        def loss() -> float:
            seen.append(x.detach().clone())
            return float(x.detach()[0])

        opt.judge(loss)
        x.grad = torch.zeros(D)
        opt.step()
        rank = peer.rank
        assert float(seen[0][0]) == rank  # its own first, then its two nearest
        lower = sorted((float(v[0]) for v in seen[1:] if float(v[0]) <= rank), reverse=True)
        expected = 0.5 * rank + 0.5 * (np.mean(lower) if lower else min(float(v[0]) for v in seen[1:]))
        np.testing.assert_allclose(x.detach().numpy(), expected)

    run_peers(5, program)


def test_ubar_without_a_loss_says_so(run_peers: Any) -> None:
    def program(peer: Any) -> str:
        x = nn.Parameter(torch.zeros(D))
        sgd = torch.optim.SGD([x], lr=0.1, momentum=0.9)
        opt = DecentralizedOptimizer(sgd, peer, algorithm="ubar", topology="complete", iid=True)
        x.grad = torch.ones(D)
        with pytest.raises(ConfigError, match=r"optimizer\.judge"):
            opt.step()
        return ""

    run_peers(4, program)


def test_the_user_is_told_of_different_data_and_of_missing_momentum() -> None:
    local._warned.clear()
    plain, momentum = local.LocalOptimizer(), local.LocalOptimizer(momentum=0.9)
    rule = gossip.make("nna:f=1")
    with pytest.warns(HeterogeneityWarning, match="cannot tell a liar from a rank whose data differ"):
        local.warn_if_biased(rule, momentum, 4)
    with pytest.warns(RobustnessWarning, match=r"momentum=0\.9"):
        local.warn_if_biased(rule, plain, 4, iid=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local.warn_if_biased(rule, plain, 4)  # said once
        local._warned.clear()
        local.warn_if_biased(rule, momentum, 4, iid=True)
        local.warn_if_biased(rule, plain, 1)
        local.warn_if_biased(gossip.make("dpsgd"), plain, 4)
    local._warned.clear()


def test_means_and_distances_leave_out_who_does_not_count(run_peers: Any) -> None:
    def program(peer: Any) -> Any:
        model = nn.Linear(2, 1, bias=False)
        with torch.no_grad():
            model.weight.fill_(100.0 if peer.rank == 1 else float(peer.rank))
        sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        opt = DecentralizedOptimizer(sgd, peer, algorithm="dpsgd", init="keep", iid=True)
        opt.honest = peer.rank != 1
        with opt.averaged():
            inside = model.weight.tolist()[0]
        distance = opt.consensus_distance()
        own = model.weight.tolist()[0]
        opt.merge()
        return inside, distance, own, model.weight.tolist()[0]

    for rank, (inside, distance, own, merged) in enumerate(run_peers(4, program)):
        mean = (0 + 2 + 3) / 3
        np.testing.assert_allclose(inside, mean, rtol=1e-6)
        np.testing.assert_allclose(merged, mean, rtol=1e-6)
        assert distance == pytest.approx(np.sqrt(2 * np.var([0, 2, 3])), rel=1e-5)
        assert own == [100.0 if rank == 1 else rank] * 2


def test_measured_mixing_is_refused(run_peers: Any) -> None:
    def program(peer: Any) -> None:
        x = nn.Parameter(torch.zeros(D))
        sgd = torch.optim.SGD([x], lr=0.1, momentum=0.9)
        with pytest.raises(ConfigError, match="estimate"):
            DecentralizedOptimizer(
                sgd, peer, algorithm="cs-plus:f=1", topology="complete", iid=True, estimate=True
            )

    run_peers(4, program)
