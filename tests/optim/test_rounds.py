"""What must hold whatever the problem: sums over the ranks, local steps, means; and DiLoCo's outer steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pydec import DecentralizedOptimizer, gossip, topology

Run = Callable[..., list[Any]]
Matrix = NDArray[np.float64]
D = 6


@pytest.mark.parametrize(
    ("algorithm", "b"), [("gradient-tracking", 0.0), ("momentum-tracking:momentum=0.7", 0.7)]
)
@pytest.mark.parametrize("local_steps", [1, 3])
def test_the_trackers_add_up_to_the_gradients(
    run_peers: Run, quadratics: Any, train: Any, algorithm: str, b: float, local_steps: int
) -> None:
    size, problem, rates = 6, quadratics(6), [0.05] * 20

    def probe(opt: Any) -> list[Any]:
        rule = opt._rounds.parts[0].rule
        return [vector[:D].copy() for vector in (rule.tracker, rule.previous)]

    options = {"algorithm": algorithm, "topology": "base-k:k=1", "local_steps": local_steps}
    results = run_peers(size, lambda peer: train(peer, problem, rates, probe, **options))
    path = np.stack([result[0] for result in results], axis=1)
    x, u = np.zeros((size, D)), np.zeros((size, D))
    for t in range(len(rates)):
        u = b * u + problem.gradient(x)
        tracker, previous = (sum(result[1][t][k].astype(np.float64) for result in results) for k in (0, 1))
        np.testing.assert_allclose(previous, u.sum(0), atol=1e-5)
        np.testing.assert_allclose(tracker, u.sum(0), atol=1e-5)  # that is sum C = sum (U - Y) = 0
        x = path[t]


@pytest.mark.parametrize("local_steps", [1, 4])
def test_the_corrections_add_up_to_zero(
    run_peers: Run, quadratics: Any, train: Any, local_steps: int
) -> None:
    size, problem, rates = 6, quadratics(6), [0.05] * 10 + [0.01] * 10
    options = {"algorithm": "exact-diffusion", "topology": "base-k:k=1", "local_steps": local_steps}
    results = run_peers(
        size,
        lambda peer: train(
            peer,
            problem,
            rates,
            lambda opt: opt._rounds.parts[0].rule.own_state() or _correction(opt),
            **options,
        ),
    )
    for t in range(len(rates)):
        corrections = np.stack([result[1][t] for result in results]).astype(np.float64)
        assert np.abs(corrections.sum(0)).max() < 1e-6
    assert np.abs(corrections).max() > 1e-3


def _correction(opt: Any) -> NDArray[np.float32]:
    return opt._rounds.parts[0].rule.state()["correction"][:D].copy()


def nesterov(problem: Any, periods: int, h: int, eta: float, lr: float, mu: float) -> Matrix:
    """DiLoCo: the common model after every outer step."""
    size = len(problem.b)
    theta, m, path = np.zeros(D), np.zeros(D), []
    for _ in range(periods):
        x = np.tile(theta, (size, 1))
        for _ in range(h):
            x = x - eta * problem.gradient(x)
        d = theta - x.mean(0)
        m = mu * m + d
        theta = theta - lr * (d + mu * m)
        path.append(theta)
    return np.stack(path)


@pytest.mark.parametrize(
    ("algorithm", "graph"),
    [
        ("diloco", "base-k:k=1"),
        ("diloco", "complete"),
        ("gossip-diloco", "complete"),
    ],
)
def test_diloco_and_its_gossip_forms_are_nesterov_on_the_mean(
    paths: Any, quadratics: Any, algorithm: str, graph: str
) -> None:
    size, h, periods, problem = 6, 4, 12, quadratics(6)
    options = {"algorithm": algorithm, "topology": graph, "local_steps": h}
    got = paths(size, problem, [0.05] * h * periods, **options)[h - 1 :: h]
    expected = nesterov(problem, periods, h, 0.05, 0.7, 0.9)
    np.testing.assert_allclose(got, np.repeat(expected[:, None], size, axis=1), atol=1e-5)


@pytest.mark.parametrize(("algorithm", "mu"), [("gossip-diloco", 0.9), ("gasloc:momentum=0.4", 0.4)])
@pytest.mark.parametrize("graph", ["ring", "base-k:k=1", "complete"])
def test_with_equal_curvature_the_mean_follows_diloco_on_every_graph(
    paths: Any, quadratics: Any, algorithm: str, mu: float, graph: str
) -> None:
    size, h, periods, problem = 6, 3, 12, quadratics(6, curved=False)
    options = {"algorithm": algorithm, "topology": graph, "local_steps": h}
    got = paths(size, problem, [0.05] * h * periods, **options)[h - 1 :: h]
    np.testing.assert_allclose(got.mean(1), nesterov(problem, periods, h, 0.05, 0.7, mu), atol=1e-5)
    w = topology.make(graph, size=size).weights
    x = before = np.zeros((size, D))
    m = np.zeros((size, D))
    for t in range(periods):
        inner = x
        for _ in range(h):
            inner = inner - 0.05 * problem.gradient(inner)
        if algorithm == "gossip-diloco":
            d = x - inner
            m = mu * m + d
            x = w(t) @ (x - 0.7 * (d + mu * m))
        else:
            y = x + 0.7 * (inner - x)
            x, before = w(t) @ y + mu * (y - before), y
        np.testing.assert_allclose(got[t], x, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["exact-diffusion", "d2", "gradient-tracking", "momentum-tracking"])
def test_exact_methods_stay_exact_with_local_steps(paths: Any, quadratics: Any, algorithm: str) -> None:
    size, problem = 5, quadratics(5)
    options = {"algorithm": algorithm, "topology": "ring", "local_steps": 4}
    got = paths(size, problem, [0.04] * 700, **options)[-1]
    np.testing.assert_allclose(got, np.tile(problem.optimum, (size, 1)), atol=2e-5)


@pytest.mark.parametrize("order", ["atc", "cta"])
def test_dpsgd_with_local_steps_is_local_sgd_with_gossip(paths: Any, quadratics: Any, order: str) -> None:
    size, h, problem, rates = 4, 3, quadratics(4), [0.1] * 12
    got = paths(size, problem, rates, algorithm=f"dpsgd:order={order}", topology="ring", local_steps=h)
    w, x = topology.make("ring", size=size).weights(0), np.zeros((size, D))
    for t in range(len(rates)):
        g = problem.gradient(x)
        if order == "cta" and t % h == 0:
            x = w @ x  # the gradient was taken while the packets travelled
        x = x - 0.1 * g
        if order == "atc" and t % h == h - 1:
            x = w @ x
        np.testing.assert_allclose(got[t], x, atol=1e-6)


def test_adam_with_plain_mixing_goes_to_the_median_and_with_tracking_to_the_mean(run_peers: Run) -> None:
    def settle(peer: Any, **options: Any) -> float:
        x = nn.Parameter(torch.tensor([1.0]))
        opt = DecentralizedOptimizer(torch.optim.Adam([x], lr=0.05), peer, topology="complete", **options)
        for step in range(300):
            opt.param_groups[0]["lr"] = 0.05 if step < 150 else 0.002
            opt.zero_grad()
            (0.5 * (x - 8.0 * (peer.rank == 3)).square().sum()).backward()
            opt.step()
        return x.item()

    assert abs(run_peers(4, lambda peer: settle(peer, algorithm="dpsgd"))[0]) < 0.2
    assert run_peers(4, lambda peer: settle(peer, algorithm="gradient-tracking"))[0] == pytest.approx(
        2.0, abs=0.1
    )


def test_a_single_rank_is_the_wrapped_optimiser(paths: Any, quadratics: Any) -> None:
    problem, rates = quadratics(1), [0.2] * 6
    x = nn.Parameter(torch.zeros(D))
    plain = torch.optim.SGD([x], lr=0.2)
    for _ in rates:
        plain.zero_grad()
        problem.loss(0, x).backward()
        plain.step()
    for name in gossip.algorithms:
        if gossip.make(name).adaptive:  # test_adaptive.py compares it with torch's
            continue
        # DiLoCo's outer step stays one of momentum; with outer_lr=1 and momentum=0 it is the inner one.
        options = {option.name for option in gossip.algorithms.options(name)}
        wanted = [f"{key}={value}" for key, value in (("momentum", 0), ("outer_lr", 1)) if key in options]
        wanted += ["keep=1"] if name == "streaming-diloco" else []  # its rounds come back a window late
        spec = f"{name}:{','.join(wanted)}".removesuffix(":")
        got = paths(1, problem, rates, algorithm=spec, topology="ring")[-1, 0]
        tolerance = 0 if name in ("dpsgd", "allreduce", "sgp", "choco", "dsgdm") else 1e-6
        np.testing.assert_allclose(got, x.detach().numpy(), atol=tolerance, rtol=0, err_msg=spec)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_statistics_gathered_while_a_round_travels_are_kept(run_peers: Run, dtype: torch.dtype) -> None:
    """In every dtype they are, but for rounding, what they are in float32, which is mixed where it lies."""
    batches = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(1))

    def program(peer: Any, dtype: torch.dtype) -> torch.Tensor:
        model = nn.BatchNorm1d(4).to(dtype)
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {"algorithm": "dpsgd:order=cta", "topology": "complete", "iid": True}
        opt = DecentralizedOptimizer(sgd, peer, model=model, **options)
        for batch in batches:
            opt.zero_grad()
            model((batch + peer.rank).to(dtype)).square().mean().backward()
            opt.step()
        opt.merge()
        return model.state_dict()["running_mean"].double()

    expected = run_peers(2, lambda peer: program(peer, torch.float32))
    tolerance = max(1e-6, 4 * torch.finfo(dtype).eps)
    for ours, theirs in zip(run_peers(2, lambda peer: program(peer, dtype)), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
