"""Every algorithm against a simulation of its published equations, in float64, on quadratics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pydec import DecentralizedOptimizer, gossip, topology
from pydec.errors import ConfigError
from pydec.topology.base import Topology
from pydec.topology.schedule import Schedule, SparseRound

Run = Callable[..., list[Any]]
Matrix = NDArray[np.float64]
D = 6


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


def train(
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


def paths(run_peers: Run, size: int, problem: Quadratics, rates: list[float], **options: Any) -> Matrix:
    """Trajectories of all ranks, (steps, size, D)."""
    results = run_peers(size, lambda peer: train(peer, problem, rates, **options)[0])
    return np.stack(results, axis=1).astype(np.float64)


# Simulations: (gradient, weights by round, rates, options) -> (steps, size, D), straight from the papers.


def dsgdm(g: Any, w: Any, rates: list[float], size: int, order: str = "cta", b: float = 0.9) -> Matrix:
    x, m, path = np.zeros((size, D)), np.zeros((size, D)), []
    for t, eta in enumerate(rates):
        m = b * m + g(x)
        x = w(t) @ x - eta * m if order == "cta" else w(t) @ (x - eta * m)
        path.append(x)
    return np.stack(path)


def qg(g: Any, w: Any, rates: list[float], size: int, b: float = 0.9) -> Matrix:
    x, m, path = np.zeros((size, D)), np.zeros((size, D)), []
    for t, eta in enumerate(rates):
        new = w(t) @ (x - eta * (b * m + g(x)))
        if eta:
            m = b * m + (1 - b) * (x - new) / eta
        x = new
        path.append(x)
    return np.stack(path)


def decentlam(g: Any, w: Any, rates: list[float], size: int, b: float = 0.9) -> Matrix:
    x, m, path = np.zeros((size, D)), np.zeros((size, D)), []
    for t, eta in enumerate(rates):
        mixed = w(t) @ (x - eta * g(x))
        if eta:
            m = b * m + (x - mixed) / eta
            x = x - eta * m
        else:
            x = mixed
        path.append(x)
    return np.stack(path)


def d2(g: Any, w: Any, rates: list[float], size: int, lazy: bool = False, b: float = 0.0) -> Matrix:
    """In the papers' form, x+ = W(2x - x- - eta(u - u-)), for a constant rate; u is a momentum."""
    x, before, u, path = np.zeros((size, D)), None, np.zeros((size, D)), []
    for t, eta in enumerate(rates):
        matrix = (np.eye(size) + w(t)) / 2 if lazy else w(t)
        new = b * u + g(x)
        x, before, u = (
            (matrix @ (x - eta * new), x, new)
            if before is None
            else (matrix @ (2 * x - before - eta * (new - u)), x, new)
        )
        path.append(x)
    return np.stack(path)


def tracking(g: Any, w: Any, rates: list[float], size: int) -> Matrix:
    x, path = np.zeros((size, D)), []
    before = y = g(x)
    for t, eta in enumerate(rates):
        x, y = w(t) @ (x - eta * y), w(t) @ y
        y, before = y + g(x) - before, g(x)
        path.append(x)
    return np.stack(path)


def momentum_tracking(g: Any, w: Any, rates: list[float], size: int, b: float = 0.9) -> Matrix:
    x, u, c, path = np.zeros((size, D)), np.zeros((size, D)), np.zeros((size, D)), []
    for t, eta in enumerate(rates):
        u = b * u + g(x)
        x, c = w(t) @ (x - eta * (u - c)), w(t) @ (c - u) + u
        path.append(x)
    return np.stack(path)


def push_sum(g: Any, w: Any, rates: list[float], size: int, order: str = "atc") -> Matrix:
    s, mass, path = np.zeros((size, D)), np.ones((size, 1)), []
    for t, eta in enumerate(rates):
        step = eta * g(s / mass)
        s = w(t) @ s - step if order == "cta" else w(t) @ (s - step)
        mass = w(t) @ mass
        path.append(s / mass)
    return np.stack(path)


CASES = [
    ("dsgdm:order=atc", "ring", lambda *a: dsgdm(*a, order="atc")),
    ("dsgdm", "one-peer-exponential", dsgdm),
    ("dsgdm:momentum=0.5", "base-k:k=1", lambda *a: dsgdm(*a, b=0.5)),
    ("qg-dsgdm", "ring", qg),
    ("qg-dsgdm:momentum=0.7", "one-peer-exponential", lambda *a: qg(*a, b=0.7)),
    ("decentlam", "ring", decentlam),
    ("decentlam:momentum=0.5", "base-k:k=1", lambda *a: decentlam(*a, b=0.5)),
    ("exact-diffusion", "ring", lambda *a: d2(*a, lazy=True)),
    ("exact-diffusion", "base-k:k=1", None),
    ("d2", "ring", d2),
    ("gradient-tracking", "exponential", tracking),
    ("gradient-tracking", "base-k:k=1", tracking),
    ("momentum-tracking", "ring", momentum_tracking),
    ("momentum-tracking:momentum=0.5", "one-peer-exponential", lambda *a: momentum_tracking(*a, b=0.5)),
    ("sgp", "one-peer-exponential", push_sum),
    ("sgp:order=cta", "exponential", lambda *a: push_sum(*a, order="cta")),
]


@pytest.mark.parametrize(("algorithm", "graph", "simulate"), CASES, ids=lambda case: str(case)[:40])
@pytest.mark.parametrize("size", [5, 6])
def test_trajectories_are_those_of_the_equations(
    run_peers: Run, algorithm: str, graph: str, simulate: Any, size: int
) -> None:
    if simulate is None or (algorithm == "d2" and size == 6):
        pytest.skip("refused, or no simulation of it")
    problem, rates = Quadratics(size), [0.05] * 25
    got = paths(run_peers, size, problem, rates, algorithm=algorithm, topology=graph)
    schedule = topology.make(graph, size=size)
    expected = simulate(problem.gradient, schedule.weights, rates, size)
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["exact-diffusion", "d2", "gradient-tracking", "momentum-tracking"])
@pytest.mark.parametrize("graph", ["ring", "base-k:k=1", "random-matching"])
def test_exact_methods_reach_the_common_optimum(run_peers: Run, algorithm: str, graph: str) -> None:
    if algorithm == "d2" and graph != "ring":
        pytest.skip("refused")
    size = 5 if graph == "ring" else 6
    problem = Quadratics(size)
    rates = [0.1] * 100 + [0.03] * 40 + [0.1] * 120  # the fixed point does not depend on the rate
    got = paths(run_peers, size, problem, rates, algorithm=algorithm, topology=graph)[-1]
    np.testing.assert_allclose(got, np.tile(problem.optimum, (size, 1)), atol=1e-5)


def test_momentum_around_exact_diffusion_is_its_equation(run_peers: Run) -> None:
    size, problem, rates = 5, Quadratics(5), [0.03] * 40
    got = paths(
        run_peers,
        size,
        problem,
        rates,
        algorithm="exact-diffusion",
        topology="ring",
        optimizer=lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.8),
    )
    w = topology.make("ring", size=size).weights
    expected = d2(problem.gradient, w, rates, size, lazy=True, b=0.8)
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("algorithm", ["exact-diffusion", "d2"])
def test_the_correction_survives_a_fall_of_the_learning_rate(run_peers: Run, algorithm: str) -> None:
    """At the fixed point a change of the rate moves nothing: the correction changes in proportion."""
    size, problem = 5, Quadratics(5)
    rates = [0.2] * 250 + [0.002] * 5 + [0.0] * 3 + [0.1] * 5
    got = paths(run_peers, size, problem, rates, algorithm=algorithm, topology="ring")
    assert np.abs(got[249] - problem.optimum).max() < 1e-5
    assert np.abs(got[250:] - problem.optimum).max() < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "b"), [("dsgdm:order=atc,momentum=0.0", 0.0), ("dsgdm:order=atc,momentum=0.9", 0.9)]
)
def test_plain_methods_reach_their_biased_fixed_point(run_peers: Run, algorithm: str, b: float) -> None:
    size, eta, problem = 6, 0.02, Quadratics(6, curved=False)
    got = paths(run_peers, size, problem, [eta] * 450, algorithm=algorithm, topology="ring")[-1]
    w, step = topology.make("ring", size=size).weights(0), eta / (1 - b)
    # x = W (x - step (x - b)): DSGDm is biased like plain DSGD at eta / (1 - momentum).
    fixed = np.linalg.solve(np.eye(size) - (1 - step) * w, step * w @ problem.b)
    np.testing.assert_allclose(got, fixed, atol=2e-4 if not b else 2e-5)


@pytest.mark.parametrize("algorithm", ["qg-dsgdm", "decentlam"])
def test_these_have_the_bias_of_plain_sgd_at_the_same_rate_not_at_ten_times_it(
    run_peers: Run, algorithm: str
) -> None:
    size, eta, problem = 6, 0.02, Quadratics(6, curved=False)
    got = paths(run_peers, size, problem, [eta] * 450, algorithm=algorithm, topology="ring")[-1]
    w = topology.make("ring", size=size).weights(0)
    bias = [
        np.linalg.norm(np.linalg.solve(np.eye(size) - (1 - s) * w, s * w @ problem.b) - problem.optimum)
        for s in (eta, 10 * eta)
    ]
    reached = np.linalg.norm(got - problem.optimum)
    assert reached < 1.1 * bias[0] < 0.2 * bias[1]


@pytest.mark.parametrize("algorithm", ["qg-dsgdm", "decentlam"])
def test_a_learning_rate_of_zero_only_mixes(run_peers: Run, algorithm: str) -> None:
    size, problem = 6, Quadratics(6)
    rates = [0.05] * 6 + [0.0] * 4 + [0.05] * 6
    got = paths(run_peers, size, problem, rates, algorithm=algorithm, topology="ring")
    simulate = qg if algorithm == "qg-dsgdm" else decentlam
    expected = simulate(problem.gradient, topology.make("ring", size=size).weights, rates, size)
    if algorithm == "qg-dsgdm":  # its momentum is part of the step, which a rate of 0 makes 0
        np.testing.assert_allclose(got[6:10].mean(1), np.tile(got[5].mean(0), (4, 1)), atol=1e-6)
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in gossip.algorithms if name != "allreduce"])
def test_a_rate_that_starts_at_zero_makes_no_nan(run_peers: Run, name: str) -> None:
    size, problem = 5, Quadratics(5)
    got = paths(run_peers, size, problem, [0.0, 1e-30, 0.05, 0.0, 0.05], algorithm=name, topology=_fit(name))
    assert np.isfinite(got).all()
    assert np.abs(got[:2]).max() < 1e-20
    assert np.abs(got[-1]).max() > 1e-3


def _fit(name: str) -> str:
    """A graph that every size of the algorithm's tests can use."""
    return "base-k:k=1" if name == "diloco" else "ring"


@pytest.mark.parametrize(
    ("algorithm", "b"), [("gradient-tracking", 0.0), ("momentum-tracking:momentum=0.7", 0.7)]
)
@pytest.mark.parametrize("local_steps", [1, 3])
def test_the_trackers_add_up_to_the_gradients(
    run_peers: Run, algorithm: str, b: float, local_steps: int
) -> None:
    size, problem, rates = 6, Quadratics(6), [0.05] * 20

    def probe(opt: DecentralizedOptimizer) -> list[Any]:
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
def test_the_corrections_add_up_to_zero(run_peers: Run, local_steps: int) -> None:
    size, problem, rates = 6, Quadratics(6), [0.05] * 10 + [0.01] * 10
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


def _correction(opt: DecentralizedOptimizer) -> NDArray[np.float32]:
    return opt._rounds.parts[0].rule.state()["correction"][:D].copy()


class Leaky(Schedule):
    """Directed and irregular: only the columns sum to 1."""

    is_doubly_stochastic = False

    @property
    def is_symmetric(self) -> bool:
        return False


def leaky(size: int) -> Topology:
    """Rank r sends to r + 1, even ranks also to r + 2; rank 0 also to all others. Equal shares."""
    sends = [{(r + 1) % size} | ({(r + 2) % size} if r % 2 == 0 else set()) for r in range(size)]
    sends[0] |= set(range(1, size))
    heard: list[dict[int, float]] = [{} for _ in range(size)]
    own = [1 / (1 + len(to)) for to in sends]
    for rank, to in enumerate(sends):
        for other in to - {rank}:
            heard[other][rank] = 1 / (1 + len(to))
    return Leaky("leaky", [SparseRound.from_rows(own, heard)])


@pytest.mark.parametrize("order", ["atc", "cta"])
@pytest.mark.parametrize("compressor", ["none", "int8"])
def test_push_sum_finds_the_mean_where_only_columns_sum_to_one(
    run_peers: Run, order: str, compressor: str
) -> None:
    size, problem, rates = 5, Quadratics(5, curved=False), [0.05] * 30 + [0.0] * 40
    graph = leaky(size)

    def probe(opt: DecentralizedOptimizer) -> Any:
        mixer = opt._rounds.parts[0].rule.mixers[0]
        return mixer.numerator[:D].astype(np.float64), mixer.weights[0]

    options = {"algorithm": f"sgp:order={order}", "topology": graph, "compressor": compressor}
    results = run_peers(size, lambda peer: train(peer, problem, rates, probe, **options))
    got = np.stack([result[0] for result in results], axis=1)
    if compressor == "none":
        expected = push_sum(problem.gradient, graph.weights, rates, size, order)
        np.testing.assert_allclose(got, expected, atol=3e-6)
    masses = np.array([[mass for _, mass in result[1]] for result in results])
    np.testing.assert_allclose(masses.sum(0), size, rtol=1e-12)
    assert masses.min() < 0.7
    # With a rate of 0 the sum of the numerators stays, and every ratio becomes sum s / sum w.
    sums = np.stack([sum(result[1][t][0] for result in results) for t in range(30, 70)])
    np.testing.assert_allclose(sums, np.tile(sums[0], (40, 1)), atol=1e-5)
    np.testing.assert_allclose(
        got[-1], np.tile(sums[0] / size, (size, 1)), atol=2e-5 if compressor == "none" else 3e-2
    )


def nesterov(problem: Quadratics, periods: int, h: int, eta: float, lr: float, mu: float) -> Matrix:
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
    run_peers: Run, algorithm: str, graph: str
) -> None:
    size, h, periods, problem = 6, 4, 12, Quadratics(6)
    options = {"algorithm": algorithm, "topology": graph, "local_steps": h}
    got = paths(run_peers, size, problem, [0.05] * h * periods, **options)[h - 1 :: h]
    expected = nesterov(problem, periods, h, 0.05, 0.7, 0.9)
    np.testing.assert_allclose(got, np.repeat(expected[:, None], size, axis=1), atol=1e-5)


@pytest.mark.parametrize(("algorithm", "mu"), [("gossip-diloco", 0.9), ("gasloc:momentum=0.4", 0.4)])
@pytest.mark.parametrize("graph", ["ring", "base-k:k=1", "complete"])
def test_with_equal_curvature_the_mean_follows_diloco_on_every_graph(
    run_peers: Run, algorithm: str, mu: float, graph: str
) -> None:
    size, h, periods, problem = 6, 3, 12, Quadratics(6, curved=False)
    options = {"algorithm": algorithm, "topology": graph, "local_steps": h}
    got = paths(run_peers, size, problem, [0.05] * h * periods, **options)[h - 1 :: h]
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


def test_local_steps_are_rounds_without_neighbours(run_peers: Run) -> None:
    size, h, problem, rates = 6, 3, Quadratics(6), [0.05] * 18
    schedule = topology.make("ring", size=size)

    def weights(t: int) -> Matrix:
        return schedule.weights(t // h) if t % h == h - 1 else np.eye(size)

    for algorithm, simulate in (
        ("dsgdm:order=atc", lambda *a: dsgdm(*a, order="atc")),
        ("qg-dsgdm", qg),
        ("decentlam", decentlam),
        ("gradient-tracking", tracking),
        ("momentum-tracking", momentum_tracking),
        ("sgp", push_sum),
    ):
        got = paths(run_peers, size, problem, rates, algorithm=algorithm, topology="ring", local_steps=h)
        expected = simulate(problem.gradient, weights, rates, size)
        np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5, err_msg=algorithm)


@pytest.mark.parametrize("algorithm", ["exact-diffusion", "d2", "gradient-tracking", "momentum-tracking"])
def test_exact_methods_stay_exact_with_local_steps(run_peers: Run, algorithm: str) -> None:
    size, problem = 5, Quadratics(5)
    options = {"algorithm": algorithm, "topology": "ring", "local_steps": 4}
    got = paths(run_peers, size, problem, [0.04] * 700, **options)[-1]
    np.testing.assert_allclose(got, np.tile(problem.optimum, (size, 1)), atol=2e-5)


@pytest.mark.parametrize("order", ["atc", "cta"])
def test_dpsgd_with_local_steps_is_local_sgd_with_gossip(run_peers: Run, order: str) -> None:
    size, h, problem, rates = 4, 3, Quadratics(4), [0.1] * 12
    got = paths(
        run_peers, size, problem, rates, algorithm=f"dpsgd:order={order}", topology="ring", local_steps=h
    )
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


def test_a_single_rank_is_the_wrapped_optimiser(run_peers: Run) -> None:
    problem, rates = Quadratics(1), [0.2] * 6
    x = nn.Parameter(torch.zeros(D))
    plain = torch.optim.SGD([x], lr=0.2)
    for _ in rates:
        plain.zero_grad()
        problem.loss(0, x).backward()
        plain.step()
    for name in gossip.algorithms:
        # DiLoCo's outer step stays one of momentum; with outer_lr=1 and momentum=0 it is the inner one.
        spec = name + (
            ":momentum=0" if "momentum" in {o.name for o in gossip.algorithms.options(name)} else ""
        )
        spec += ",outer_lr=1" if "outer_lr" in {o.name for o in gossip.algorithms.options(name)} else ""
        got = paths(run_peers, 1, problem, rates, algorithm=spec, topology="ring")[-1, 0]
        tolerance = 0 if name in ("dpsgd", "allreduce", "sgp", "choco", "dsgdm") else 1e-6
        np.testing.assert_allclose(got, x.detach().numpy(), atol=tolerance, rtol=0, err_msg=spec)


REFUSED = [
    ("d2", "one-peer-exponential", 4, {}, "symmetric|changes every round"),
    ("d2", "base-k:k=1", 6, {}, "diverges on graphs that change.*exact-diffusion"),
    ("d2", "ring", 6, {}, r"eigenvalue of -1/3.*-0.3333.*exact-diffusion"),
    ("exact-diffusion", "exponential", 6, {}, "symmetric graph.*directed.*gradient-tracking"),
    ("decentlam", "base-k:k=1", 8, {}, r"momentum of 0.9 .* 1.05 times.*momentum=0.7 or less.*qg-dsgdm"),
    (
        "gasloc:momentum=0.9",
        "one-peer-exponential",
        16,
        {},
        r"1.2 times.*momentum=0.55 .*gossip-diloco",
    ),
    ("gasloc:momentum=0.9", "random-matching", 8, {}, "disagreement grow"),
    ("diloco", "ring", 6, {}, "averages exactly.*base-k"),
    ("choco", "base-k:k=1", 6, {}, "must not change"),
    ("gradient-tracking", "ring", 6, {"late": "drop"}, "late='drop'.*GradientTracking"),
    ("qg-dsgdm", "ring", 6, {"late": "drop"}, "late='drop'"),
    ("momentum-tracking", "ring", 6, {"compressor": "int8"}, "MomentumTracking|Int8.*none"),
    ("qg-dsgdm", "ring", 6, {"compressor": "int8"}, "divided by the learning rate"),
    ("sgp", "ring", 6, {"compressor": "topk:fraction=0.01"}, "keeps too little"),
    ("dsgdm:momentum=1", "ring", 6, {}, r"momentum must be in \[0, 1\)"),
    ("gasloc:outer_lr=0", "ring", 6, {}, "outer_lr"),
    ("dpsgd", "ring", 6, {"local_steps": 0}, "local_steps"),
    ("allreduce", "ring", 6, {"local_steps": 2}, "diloco"),
    ("dpsgd:order=cta", "ring", 6, {"mixing": "fixed:rounds=2"}, "order='cta'.*order='atc'"),
    ("diloco", "base-k:k=1", 6, {"mixing": "adaptive"}, "mixes exactly already"),
    ("dpsgd:order=atc", "ring", 6, {"estimate": True, "late": "drop"}, "every packet"),
    ("dpsgd", "leaky", 6, {}, "doubly stochastic.*algorithm='sgp'"),
    ("gradient-tracking", "leaky", 6, {}, "doubly stochastic"),
    ("exact-diffusion", "leaky", 6, {}, "doubly stochastic"),
]


@pytest.mark.parametrize(("algorithm", "graph", "size", "options", "words"), REFUSED)
def test_what_cannot_work_is_refused_with_the_way_out(
    run_peers: Run, algorithm: str, graph: Any, size: int, options: Any, words: str
) -> None:
    def program(peer: Any) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        chosen = leaky(size) if graph == "leaky" else graph
        DecentralizedOptimizer(optimizer, peer, algorithm=algorithm, topology=chosen, **options)

    with pytest.raises(ConfigError, match=words):
        run_peers(size, program)


@pytest.mark.parametrize("algorithm", ["dsgdm", "qg-dsgdm", "decentlam", "momentum-tracking"])
def test_a_second_momentum_and_another_optimiser_are_refused(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any) -> None:
        x = [nn.Parameter(torch.zeros(2))]
        sgd = torch.optim.SGD(x, lr=0.1, momentum=0.8)
        with pytest.raises(ConfigError, match=rf"momentum of its own.*{algorithm}:momentum=0.8"):
            DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring")
        with pytest.raises(ConfigError, match=r"do not hold for Adam.*dpsgd"):
            DecentralizedOptimizer(torch.optim.Adam(x), peer, algorithm=algorithm, topology="ring")

    run_peers(1, program)
