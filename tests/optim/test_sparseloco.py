"""DiLoCo with compressed deltas: its equations, equal models, errors that come later; and CHOCO's form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydec import compress

D = 6
Matrix = NDArray[np.float64]
H, PERIODS = 3, 15


def simulated(
    problem: Any, compressor: str, lr: float, mu: float, decay: float, periods: int = PERIODS
) -> Matrix:
    """e <- decay e + D; q = C(e); e <- e - q; Nesterov on the mean of q; in the class's words."""
    part, size = compress.make(compressor), len(problem.b)
    theta, m, path = np.zeros(D), np.zeros(D), []
    e = np.zeros((size, D), np.float32)
    for _ in range(periods):
        x = np.tile(theta, (size, 1))
        for _ in range(H):
            x = x - 0.05 * problem.gradient(x)
        e = (decay * e + (theta - x)).astype(np.float32)
        padded = np.zeros((size, 16), np.float32)  # as the arena pads the parameters
        padded[:, :D] = e
        q = np.stack([part.decode(part.encode(row), np.empty(16, np.float32)) for row in padded])[:, :D]
        e = e - q
        d = q.astype(np.float64).mean(0)
        m = mu * m + d
        theta = theta - lr * (d + mu * m)
        path.append(theta)
    return np.stack(path)


@pytest.mark.parametrize("compressor", ["none", "topk:k=2", "int8"])
@pytest.mark.parametrize(("lr", "mu", "decay"), [(1.0, 0.0, 0.95), (0.7, 0.9, 1.0)])
def test_it_is_its_equations_and_models_stay_equal(
    paths: Any, quadratics: Any, compressor: str, lr: float, mu: float, decay: float
) -> None:
    size, problem = 5, quadratics(5)
    algorithm = f"sparseloco:outer_lr={lr},momentum={mu},decay={decay}"
    options = {"topology": "complete", "local_steps": H, "compressor": compressor}
    got = paths(size, problem, [0.05] * H * PERIODS, algorithm=algorithm, **options)[H - 1 :: H]
    np.testing.assert_array_equal(got, np.repeat(got[:, :1], size, axis=1))
    np.testing.assert_allclose(got[:, 0], simulated(problem, compressor, lr, mu, decay), atol=2e-5)


def test_without_compression_it_is_diloco(paths: Any, quadratics: Any) -> None:
    problem, options = quadratics(5), {"topology": "complete", "local_steps": H}
    ours, theirs = (
        paths(5, problem, [0.05] * 30, algorithm=name, **options)[H - 1 :: H]
        for name in ("sparseloco:outer_lr=0.7,momentum=0.9", "diloco")
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("compressor", ["topk:k=1", "int2:block=64"])
def test_what_is_left_out_comes_later(paths: Any, quadratics: Any, compressor: str) -> None:
    """One entry of six, or two bits, and the optimum all the same."""
    problem = quadratics(4, curved=False)
    options = {"topology": "complete", "local_steps": H, "compressor": compressor}
    got = paths(4, problem, [0.05] * H * 120, algorithm="sparseloco:outer_lr=0.3,decay=1", **options)[-1]
    np.testing.assert_allclose(got, np.tile(problem.optimum, (4, 1)), atol=0.03)


@pytest.mark.parametrize("graph", ["ring", "base-k:k=1", "random-matching"])
def test_choco_diloco_keeps_the_mean_of_gossip_diloco(paths: Any, quadratics: Any, graph: str) -> None:
    """On quadratics of equal curvature the mean does not depend on how the ranks agree."""
    problem, options = quadratics(6, curved=False), {"topology": graph}
    rates = [0.05] * 30 + [0.0] * 130
    exact = paths(6, problem, rates[:60], algorithm="gossip-diloco:momentum=0.5", **options)
    sparse = paths(6, problem, rates, algorithm="choco-diloco:momentum=0.5", compressor="topk:k=2", **options)
    np.testing.assert_allclose(sparse[:60].mean(1), exact.mean(1), atol=2e-5)
    spread = [np.linalg.norm(x - x.mean(0)) for x in (sparse[30], sparse[-1])]
    assert spread[1] < 0.01 * spread[0]  # without gradients, what is left out arrives
