"""Every algorithm against a simulation of its published equations, in float64, on quadratics."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pydec import gossip, topology

Run = Callable[..., list[Any]]
Matrix = NDArray[np.float64]
D = 6


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


def relay(g: Any, w: Any, rates: list[float], size: int) -> Matrix:
    edges = [(i, j) for i in range(size) for j in range(size) if i != j and w(0)[i, j]]
    x, path = np.zeros((size, D)), []
    sums, counts = dict.fromkeys(edges, np.zeros(D)), dict.fromkeys(edges, 0)
    for eta in rates:
        half, old, known = x - eta * g(x), sums, counts
        into = {edge: [(k, edge[0]) for k, end in edges if end == edge[0] and k != edge[1]] for edge in edges}
        sums = {edge: half[edge[0]] + sum(old[other] for other in into[edge]) for edge in edges}
        counts = {edge: 1 + sum(known[other] for other in into[edge]) for edge in edges}
        x = np.stack(
            [
                (half[i] + sum(sums[k, i] for k, j in edges if j == i))
                / (1 + sum(counts[k, i] for k, j in edges if j == i))
                for i in range(size)
            ]
        )
        path.append(x)
    return np.stack(path)


def beer(g: Any, w: Any, rates: list[float], size: int, gamma: float = 1.0) -> Matrix:
    """With a compressor that loses nothing, so that estimates equal what they estimate."""
    x, v, old, path = np.zeros((size, D)), np.zeros((size, D)), np.zeros((size, D)), []
    lazy = gamma * (w(0) - np.eye(size))
    for eta in rates:
        v = v + lazy @ v + g(x) - old
        old = g(x)
        x = x + lazy @ x - eta * v
        path.append(x)
    return np.stack(path)


def k_gt(g: Any, w: Any, rates: list[float], size: int, k: int = 1, outer: float = 1.0) -> Matrix:
    x, c, path = np.zeros((size, D)), np.zeros((size, D)), []
    for t in range(0, len(rates), k):
        start, total = x, sum(rates[t : t + k])
        for eta in rates[t : t + k]:
            x = x - eta * (g(x) + c)
            path.append(x)
        z = (start - x) / total
        matrix = w(t // k)
        c = c - z + matrix @ z
        x = matrix @ (start - total * outer * z)
        path[-1] = x
    return np.stack(path)


def damsgrad(g: Any, w: Any, rates: list[float], size: int, order: str = "cta") -> Matrix:
    x, m, v, h, u = (np.zeros((size, D)) for _ in range(5))
    path = []
    for t, eta in enumerate(rates):
        gradient = g(x)
        if order == "cta":
            x, u = w(t) @ x, w(t) @ u
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        u, h = u + np.maximum(h, v) - h, np.maximum(h, v)
        x = x - eta * m / np.sqrt(np.maximum(u, 1e-8))
        if order == "atc":
            x, u = w(t) @ x, w(t) @ u
        path.append(x)
    return np.stack(path)


def accum_adam(g: Any, w: Any, rates: list[float], size: int, every: int = 4) -> Matrix:
    x, m, v, a = (np.zeros((size, D)) for _ in range(4))
    path = []
    for t, eta in enumerate(rates):
        gradient, groups = g(x), t // every + 1
        m_now = (0.9 * m + 0.1 * gradient) / (1 - 0.9**groups)
        v_now = (0.98 * v + 0.02 * gradient**2) / (1 - 0.98**groups)
        x = w(t) @ x - eta * m_now / (np.sqrt(v_now) + 1e-8)
        a = a + gradient / every
        if t % every == every - 1:
            m, v, a = 0.9 * m + 0.1 * a, 0.98 * v + 0.02 * a**2, 0 * a
        path.append(x)
    return np.stack(path)


CASES = [
    ("dsgdm:order=atc", "ring", partial(dsgdm, order="atc")),
    ("dsgdm", "one-peer-exponential", dsgdm),
    ("dsgdm:momentum=0.5", "base-k:k=1", partial(dsgdm, b=0.5)),
    ("qg-dsgdm", "ring", qg),
    ("qg-dsgdm:momentum=0.7", "one-peer-exponential", partial(qg, b=0.7)),
    ("decentlam", "ring", decentlam),
    ("decentlam:momentum=0.5", "base-k:k=1", partial(decentlam, b=0.5)),
    ("exact-diffusion", "ring", partial(d2, lazy=True)),
    ("d2", "ring", d2),
    ("gradient-tracking", "exponential", tracking),
    ("gradient-tracking", "base-k:k=1", tracking),
    ("momentum-tracking", "ring", momentum_tracking),
    ("momentum-tracking:momentum=0.5", "one-peer-exponential", partial(momentum_tracking, b=0.5)),
    ("sgp", "one-peer-exponential", push_sum),
    ("sgp:order=cta", "exponential", partial(push_sum, order="cta")),
    ("relaysgd", "chain", relay),
    ("relaysgd", "binary-tree", relay),
    ("beer:gamma=1.0", "exponential", beer),
    ("beer:gamma=0.5", "ring", partial(beer, gamma=0.5)),
    ("k-gt", "one-peer-exponential", k_gt),
    ("k-gt:outer_lr=0.7", "ring", partial(k_gt, outer=0.7)),
    ("damsgrad", "one-peer-exponential", damsgrad),
    ("damsgrad:order=atc", "ring", partial(damsgrad, order="atc")),
    ("accum-adam", "one-peer-exponential", accum_adam),
    ("accum-adam:every=3", "ring", partial(accum_adam, every=3)),
]


@pytest.mark.parametrize(
    ("algorithm", "graph", "simulate"), CASES, ids=lambda part: part if isinstance(part, str) else ""
)
@pytest.mark.parametrize("size", [5, 6])
def test_trajectories_are_those_of_the_equations(
    paths: Any, quadratics: Any, algorithm: str, graph: str, simulate: Any, size: int
) -> None:
    if (algorithm, size) == ("d2", 6):
        size = 7  # the ring's smallest eigenvalue is -1/3 for even sizes
    problem, rates = quadratics(size), [0.05] * 25
    got = paths(size, problem, rates, algorithm=algorithm, topology=graph)
    schedule = topology.make(graph, size=size)
    expected = simulate(problem.gradient, schedule.weights, rates, size)
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("algorithm", "graph"),
    [
        ("d2", "ring"),
        *itertools.product(["relaysgd"], ["chain", "star", "binary-tree", "spanning-tree:of=torus"]),
        *itertools.product(
            ["exact-diffusion", "gradient-tracking", "momentum-tracking", "k-gt"],
            ["ring", "base-k:k=1", "random-matching"],
        ),
    ],
)
def test_exact_methods_reach_the_common_optimum(
    paths: Any, quadratics: Any, algorithm: str, graph: str
) -> None:
    size = 5 if graph == "ring" else 6
    problem = quadratics(size)
    rates = [0.1] * 100 + [0.03] * 40 + [0.1] * 120  # the fixed point does not depend on the rate
    if algorithm == "relaysgd":
        rates += [0.1] * 150  # its delays make it slower
    got = paths(size, problem, rates, algorithm=algorithm, topology=graph)[-1]
    np.testing.assert_allclose(got, np.tile(problem.optimum, (size, 1)), atol=1e-5)


def test_momentum_around_exact_diffusion_is_its_equation(paths: Any, quadratics: Any) -> None:
    size, problem, rates = 5, quadratics(5), [0.03] * 40
    got = paths(
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
def test_the_correction_survives_a_fall_of_the_learning_rate(
    paths: Any, quadratics: Any, algorithm: str
) -> None:
    """At the fixed point a change of the rate moves nothing: the correction changes in proportion."""
    size, problem = 5, quadratics(5)
    rates = [0.2] * 250 + [0.002] * 5 + [0.0] * 3 + [0.1] * 5
    got = paths(size, problem, rates, algorithm=algorithm, topology="ring")
    assert np.abs(got[249] - problem.optimum).max() < 1e-5
    assert np.abs(got[250:] - problem.optimum).max() < 1e-5


@pytest.mark.parametrize(
    ("algorithm", "b"), [("dsgdm:order=atc,momentum=0.0", 0.0), ("dsgdm:order=atc,momentum=0.9", 0.9)]
)
def test_plain_methods_reach_their_biased_fixed_point(
    paths: Any, quadratics: Any, algorithm: str, b: float
) -> None:
    size, eta, problem = 6, 0.02, quadratics(6, curved=False)
    got = paths(size, problem, [eta] * 450, algorithm=algorithm, topology="ring")[-1]
    w, step = topology.make("ring", size=size).weights(0), eta / (1 - b)
    # x = W (x - step (x - b)): DSGDm is biased like plain DSGD at eta / (1 - momentum).
    fixed = np.linalg.solve(np.eye(size) - (1 - step) * w, step * w @ problem.b)
    np.testing.assert_allclose(got, fixed, atol=2e-4 if not b else 2e-5)


@pytest.mark.parametrize("algorithm", ["qg-dsgdm", "decentlam"])
def test_these_have_the_bias_of_plain_sgd_at_the_same_rate_not_at_ten_times_it(
    paths: Any, quadratics: Any, algorithm: str
) -> None:
    size, eta, problem = 6, 0.02, quadratics(6, curved=False)
    got = paths(size, problem, [eta] * 450, algorithm=algorithm, topology="ring")[-1]
    w = topology.make("ring", size=size).weights(0)
    bias = [
        np.linalg.norm(np.linalg.solve(np.eye(size) - (1 - s) * w, s * w @ problem.b) - problem.optimum)
        for s in (eta, 10 * eta)
    ]
    reached = np.linalg.norm(got - problem.optimum)
    assert reached < 1.1 * bias[0] < 0.2 * bias[1]


@pytest.mark.parametrize("algorithm", ["qg-dsgdm", "decentlam"])
def test_a_learning_rate_of_zero_only_mixes(paths: Any, quadratics: Any, algorithm: str) -> None:
    size, problem = 6, quadratics(6)
    rates = [0.05] * 6 + [0.0] * 4 + [0.05] * 6
    got = paths(size, problem, rates, algorithm=algorithm, topology="ring")
    simulate = qg if algorithm == "qg-dsgdm" else decentlam
    expected = simulate(problem.gradient, topology.make("ring", size=size).weights, rates, size)
    if algorithm == "qg-dsgdm":  # its momentum is part of the step, which a rate of 0 makes 0
        np.testing.assert_allclose(got[6:10].mean(1), np.tile(got[5].mean(0), (4, 1)), atol=1e-6)
    np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in gossip.algorithms if name != "allreduce"])
def test_a_rate_that_starts_at_zero_makes_no_nan(paths: Any, quadratics: Any, name: str) -> None:
    size, problem = 5, quadratics(5)
    got = paths(size, problem, [0.0, 1e-30, 0.05, 0.0, 0.05], algorithm=name, topology=_fit(name))
    assert np.isfinite(got).all()
    assert np.abs(got[:2]).max() < 1e-20
    assert np.abs(got[-1]).max() > 1e-3


def _fit(name: str) -> str:
    """A graph that every size of the algorithm's tests can use."""
    fits = {
        "diloco": "base-k:k=1",
        "choco-peers": "base-k:k=1",
        "sparseloco": "complete",
        "relaysgd": "chain",
    }
    return fits.get(name, "ring")


@pytest.mark.parametrize("order", ["atc", "cta"])
@pytest.mark.parametrize("compressor", ["none", "int8"])
def test_push_sum_finds_the_mean_where_only_columns_sum_to_one(
    run_peers: Run, quadratics: Any, train: Any, leaky: Any, order: str, compressor: str
) -> None:
    size, problem, rates = 5, quadratics(5, curved=False), [0.05] * 30 + [0.0] * 40
    graph = leaky(size)

    def probe(opt: Any) -> Any:
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


def test_local_steps_are_rounds_without_neighbours(paths: Any, quadratics: Any) -> None:
    size, h, problem, rates = 6, 3, quadratics(6), [0.05] * 18
    schedule = topology.make("ring", size=size)

    def weights(t: int) -> Matrix:
        return schedule.weights(t // h) if t % h == h - 1 else np.eye(size)

    for algorithm, simulate in (
        ("dsgdm:order=atc", partial(dsgdm, order="atc")),
        ("qg-dsgdm", qg),
        ("decentlam", decentlam),
        ("gradient-tracking", tracking),
        ("momentum-tracking", momentum_tracking),
        ("sgp", push_sum),
        ("k-gt:outer_lr=0.8", lambda g, w, rates, size: k_gt(g, schedule.weights, rates, size, h, 0.8)),
    ):
        got = paths(size, problem, rates, algorithm=algorithm, topology="ring", local_steps=h)
        expected = simulate(problem.gradient, weights, rates, size)
        np.testing.assert_allclose(got, expected, atol=3e-6, rtol=1e-5, err_msg=algorithm)
