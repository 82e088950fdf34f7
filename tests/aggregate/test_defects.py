"""Defects of other libraries that pydec does not have; each test fails there."""

from __future__ import annotations

import numpy as np
import pytest

from pydec import aggregate
from pydec.aggregate.inputs import Inputs
from pydec.aggregate.krum import scores

ROBUST = [name for name in aggregate.aggregators if name != "mean"]
DISTANCE_BASED = ["krum", "multi-krum", "mda", "nnm+trimmed-mean", "caf", "geometric-median"]


def close_models(n, f, *, d=20_000):
    """n models of norm 50 that are 0.01 apart, f of which lie 0.02 aside: relative spread 2e-4."""
    draw = np.random.default_rng(1)
    centre = draw.standard_normal(d)
    centre *= 50 / np.linalg.norm(centre)
    noise = draw.standard_normal((n, d))
    noise *= 0.007 / np.linalg.norm(noise, axis=1, keepdims=True)
    aside = draw.standard_normal(d)
    noise[:f] += 0.03 * aside / np.linalg.norm(aside)
    return [row.astype(np.float32) for row in centre + noise]


@pytest.mark.parametrize("about", ["the own model", "nothing"])
def test_distances_of_close_models_do_not_cancel(about):
    """||x||^2 + ||y||^2 - 2 x.y in float32 is off by 880 % here (byzpy)."""
    x = close_models(16, 3)
    got = Inputs(x, x[0] if about == "the own model" else None).distances
    rows = np.stack(x).astype(np.float64)
    expected = np.array([((rows - row) ** 2).sum(axis=1) for row in rows])
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-15)


def test_nearest_neighbours_of_close_models_are_honest():
    """byzpy's NNM takes Byzantine rows for the nearest of honest nodes."""
    x = close_models(16, 3)
    step = aggregate.preaggregators.make("nnm:f=3")
    matrix = step.matrix(Inputs(x), 3, np.random.default_rng(0))
    assert (matrix[3:, :3] == 0).all()


@pytest.mark.parametrize("name", [*ROBUST, "nnm+trimmed-mean", "bucketing+median", "arc+median"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_do_not_reach_the_result(name, value):
    """ByzFL's median, geometric median, Krum and centred clipping return NaN for 3 NaN rows of 16."""
    x = list(np.random.default_rng(0).standard_normal((16, 100)).astype(np.float32))
    for row in x[2:5]:
        row[::3] = value
    got = aggregate.make(name, f=3)(x, own=x[0])
    assert np.isfinite(got).all()
    assert np.linalg.norm(got - np.stack(x[5:]).mean(axis=0)) < 10


def test_centred_clipping_begins_at_the_given_model_and_keeps_nothing():
    """ByzFL's refuses any start with a TypeError, and remembers its last result; epfml's its first."""
    x = list(np.random.default_rng(0).standard_normal((9, 30)).astype(np.float32))
    start = np.full(30, 5.0, np.float32)
    rule = aggregate.make("centred-clipping:f=1,radius=0.5,iterations=1")
    first = rule(x, own=start)
    rows, v = np.stack(x).astype(np.float64), start.astype(np.float64)
    expected = v + np.mean([(row - v) * min(1, 0.5 / np.linalg.norm(row - v)) for row in rows], axis=0)
    np.testing.assert_allclose(first, expected, atol=1e-6)
    rule(x)
    np.testing.assert_array_equal(rule(x, own=start), first)


def test_krum_counts_n_minus_f_minus_2_others_and_squares_once():
    """ByzFL and byzpy count one more; epfml sums the squares of squared distances."""
    x = [np.array([v], np.float32) for v in (0.0, 1.0, 3.0, 7.0, 20.0)]
    np.testing.assert_allclose(scores(Inputs(x).distances, 1), [1 + 9, 1 + 4, 4 + 9, 16 + 36, 13**2 + 17**2])
    # with one other more, or fourth powers, the best is another
    y = [np.array([v], np.float32) for v in (0.0, 1.0, 1.1, 2.0, 2.4, 2.5)]
    assert aggregate.make("krum:f=1")(y)[0] == np.float32(2.0)


def test_multi_krum_is_a_mean_of_m_vectors():
    """epfml's is their sum; which m is the default is said in the docstring: n - f - 2."""
    x = list(np.random.default_rng(3).standard_normal((10, 8)).astype(np.float32) + 4)
    order = np.argsort(scores(Inputs(x).distances, 2))
    np.testing.assert_allclose(
        aggregate.make("multi-krum:f=2")(x), np.stack(x)[order[:6]].mean(axis=0), rtol=1e-6
    )
    np.testing.assert_allclose(
        aggregate.make("multi-krum:f=2,m=3")(x), np.stack(x)[order[:3]].mean(axis=0), rtol=1e-6
    )


def test_the_geometric_median_has_converged():
    """ByzFL takes 3 steps from the origin. At the median, the unit vectors towards all others cancel."""
    x = np.random.default_rng(0).standard_normal((15, 40)).astype(np.float32) + 100
    y = aggregate.make("geometric-median")(list(x)).astype(np.float64)
    differences = x - y
    pull = (differences / np.linalg.norm(differences, axis=1, keepdims=True)).sum(axis=0)
    assert np.linalg.norm(pull) < 1e-3


def test_the_median_of_an_even_number_is_the_mean_of_the_middles():
    """torch.median and byzpy return the lower one."""
    x = [np.array([v], np.float32) for v in (1.0, 2.0, 4.0, 9.0)]
    assert aggregate.make("median")(x)[0] == 3.0


@pytest.mark.parametrize("name", DISTANCE_BASED)
def test_huge_vectors_do_not_drown_the_distances_of_the_others(name):
    x = close_models(11, 0)
    huge = [np.full_like(x[0], 1e12)] * 2
    got = aggregate.make(name, f=2)([*huge, *x], own=x[0]).astype(np.float64)
    assert np.linalg.norm(got - np.stack(x).mean(axis=0, dtype=np.float64)) < 0.02
