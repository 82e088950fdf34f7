"""NoLoCo against the paper's equations, and the bound on its pull against second moments of pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import topology
from pydec.gossip.noloco import pulled
from pydec.gossip.stability import growth

Matrix = NDArray[np.float64]
D = 6


def simulated(problem: Any, w: Any, periods: int, h: int, pull: float, momentum: float = 0.5) -> Matrix:
    """Algorithm of section 3: every rank with its partner's outer gradient and model, then both means."""
    size = len(problem.b)
    phi, d, path = np.zeros((size, D)), np.zeros((size, D)), []
    for t in range(periods):
        theta = phi
        for _ in range(h):
            theta = theta - 0.05 * problem.gradient(theta)
        d = momentum * d + 0.7 * w(t) @ (theta - phi) - pull * (phi - w(t) @ phi)
        phi = phi + d
        path.append(phi)
    return np.stack(path)


@pytest.mark.parametrize(("graph", "size"), [("random-matching", 6), ("base-k:k=1", 5), ("ring", 4)])
@pytest.mark.parametrize("pull", [0.3, 0.6])
def test_trajectories_are_those_of_the_paper(
    paths: Any, quadratics: Any, graph: str, size: int, pull: float
) -> None:
    h, periods, problem = 3, 14, quadratics(size)
    options = {"algorithm": f"noloco:pull={pull}", "topology": graph, "local_steps": h}
    got = paths(size, problem, [0.05] * h * periods, **options)[h - 1 :: h]
    schedule = topology.make(graph, size=size, seed=7)
    np.testing.assert_allclose(got, simulated(problem, schedule.weights, periods, h, pull), atol=1e-5)


def test_a_quantised_pair_keeps_the_mean(paths: Any, quadratics: Any) -> None:
    size, h, problem = 6, 3, quadratics(6, curved=False)
    options = {"algorithm": "noloco", "topology": "random-matching", "local_steps": h}
    plain, coarse = (paths(size, problem, [0.05] * 36, compressor=c, **options) for c in ("none", "int8"))
    assert np.abs(plain - coarse).max() > 0
    np.testing.assert_allclose(coarse.mean(1), plain.mean(1), atol=1e-5)


def second_moments(momentum: float, pull: float) -> Matrix:
    """One round on (E phi^2, E phi d, E d^2), phi and d of a rank's deviation, partners independent."""
    a, g = momentum, pull
    d2 = np.array([g * g / 2, -a * g, a * a])  # of d+ = a d - g (phi - phi') / 2
    phid = np.array([-g / 2, a, 0.0])  # of phi d+
    return np.stack([np.array([1.0, 0.0, 0.0]) + 2 * phid + d2, phid + d2, d2])


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.8])
def test_pairs_agree_exactly_below_the_bound(momentum: float) -> None:
    def factor(pull: float) -> float:
        return float(np.abs(np.linalg.eigvals(second_moments(momentum, pull))).max() ** 0.5)

    limit = 2 * (1 - momentum**2)
    assert factor(0.999 * limit) < 1.0 < factor(1.001 * limit)
    assert factor(1e-3) < 1.0
    if momentum == 0.5:
        best = min(np.arange(0.05, 1.5, 0.05), key=factor)
        assert best == pytest.approx(0.3)
        assert factor(0.3) == pytest.approx(0.73, abs=0.11)


def test_the_growth_on_a_static_graph_is_that_of_its_modes() -> None:
    """z^2 - (1 + a - g (1 - lambda)) z + a = 0 for every eigenvalue lambda of W."""
    ring, a, g = topology.make("ring", size=7), 0.5, 0.4
    modes = np.sort(np.linalg.eigvalsh(ring.weights(0)))[:-1]
    radii = [np.abs(np.roots([1.0, -(1 + a - g * (1 - mode)), a])).max() for mode in modes]
    assert growth(ring, pulled(a, g)) == pytest.approx(max(radii))
