"""Specifications, what is left out before a rule and counted, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pydec import aggregate
from pydec.aggregate import Counts, Screen
from pydec.errors import ConfigError, TooFewVectors

RULES = list(aggregate.aggregators)
D = 50


def honest(n, seed=0):
    return list(np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32))


def spec(name, f):
    return name if name == "mean" else f"{name}:f={f}"


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_bad_vectors_are_left_out_of_every_rule_and_counted(name, value):
    x = honest(12)
    bad = x[1].copy()
    bad[7] = value
    rule = aggregate.make(spec(name, 1))
    got = rule([*x[:3], bad, *x[3:]])
    np.testing.assert_array_equal(got, aggregate.make(spec(name, 0))(x))  # who sent it was the one of f = 1
    expected = Counts(over_norm=1) if np.isfinite(value) else Counts(nonfinite=1)
    assert rule.counts == expected


@pytest.mark.parametrize("name", RULES)
def test_with_all_nan_the_own_model_is_kept_or_the_error_says_what_to_do(name):
    nothing = [np.full(D, np.nan, np.float32)] * 7
    own = honest(1)[0]
    rule = aggregate.make(spec(name, 1))
    np.testing.assert_array_equal(rule(nothing, own=own), own)
    assert rule.counts == Counts(nonfinite=7, kept_own=1)
    with pytest.raises(TooFewVectors, match=r"0 of 7 vectors are finite.*own="):
        rule(nothing)


def test_an_own_model_that_is_not_finite_is_replaced_by_the_others_average():
    x = honest(7)
    own = np.full(D, np.nan, np.float32)
    for name in ("krum:f=1", "median:f=1"):
        rule = aggregate.make(name)
        np.testing.assert_array_equal(rule([own, *x], own=own), aggregate.make(name)(x))
        with pytest.raises(TooFewVectors):
            rule([own] * 7, own=own)


@pytest.mark.parametrize("name", ["trimmed-mean:f=2", "nnm+median:f=2", "krum:f=2"])
def test_f_is_lowered_by_what_no_honest_rank_sends_and_by_nothing_else(name):
    x, nan = honest(9), np.full(D, np.nan, np.float32)
    told = [aggregate.make(name.replace("2", str(f))) for f in (0, 1, 2)]
    for bad in (1, 2, 3):
        np.testing.assert_array_equal(told[2]([*x, *[nan] * bad]), told[max(0, 2 - bad)](x))
    own, far = x[0], x[0] + np.float32(1000)
    near = aggregate.make(
        name, screen=Screen(max_norm=100)
    )  # of the user's own: an honest one may be farther
    np.testing.assert_array_equal(near([*x, far], own=own), told[2](x, own=own))
    aged = aggregate.make(name, screen=Screen(max_age=3))
    np.testing.assert_array_equal(aged([*x, far], ages=[0] * 9 + [4]), told[2](x))
    np.testing.assert_array_equal(told[2]([nan, *x], own=nan), told[2](x))  # its own fault, not another's


def test_where_too_few_are_left_for_f_there_is_no_average():
    x, nan = honest(4), np.full(D, np.nan, np.float32)
    rule = aggregate.make("trimmed-mean:f=2")
    one_left = aggregate.make("trimmed-mean:f=1")(x)
    np.testing.assert_array_equal(rule([*x, nan]), one_left)  # f = 2 needs 5 of them, and 1 was bad
    with pytest.raises(TooFewVectors, match="4 of 5"):  # an old vector need not be a liar's
        aggregate.make("trimmed-mean:f=2", screen=Screen(max_age=3))([*x, x[0]], ages=[0, 0, 0, 0, 4])


def test_old_vectors_are_left_out():
    x = honest(6)
    rule = aggregate.make("median", screen=Screen(max_age=2))
    np.testing.assert_array_equal(
        rule(x, ages=[0, 2, 3, 0, 1, 9]), aggregate.make("median")([x[0], x[1], x[3], x[4]])
    )
    assert rule.counts == Counts(stale=2)
    with pytest.raises(ValueError, match="for each of 6 vectors, got 1"):
        rule(x, ages=[1])


def test_large_vectors_are_judged_from_the_own_model():
    x = [v + np.float32(1000) for v in honest(5)]
    rule = aggregate.make("median", screen=Screen(max_norm=100))
    np.testing.assert_array_equal(rule(x, own=x[0]), aggregate.make("median")(x))
    with pytest.raises(TooFewVectors, match="0 of 5"):
        rule(x)
    assert rule.counts == Counts(over_norm=5)


def test_float64_whose_squares_overflow_is_too_large_and_not_infinite():
    x = [v.astype(np.float64) for v in honest(5)]
    rule = aggregate.make("krum:f=1")
    rule([*x, np.full(D, 1e200)])
    assert rule.counts == Counts(over_norm=1)


@pytest.mark.parametrize("name", RULES)
def test_one_vector(name):
    x = honest(1)
    if aggregate.aggregators.get(name)(f=0).least(0) > 1:
        with pytest.raises(ConfigError, match="got 1"):
            aggregate.make(spec(name, 0))(x)
        return
    np.testing.assert_array_equal(aggregate.make(spec(name, 0))(x), x[0])


@pytest.mark.parametrize("name", RULES)
def test_equal_vectors_average_to_themselves(name):
    x = [honest(1)[0]] * 9
    np.testing.assert_allclose(aggregate.make(f"nnm:f=1+{spec(name, 1)}")(x, own=x[0]), x[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["krum:f=1", "median"])
def test_vectors_that_do_not_go_together_are_named(name):
    x = honest(6)
    rule = aggregate.make(name)
    with pytest.raises(ValueError, match=r"vector 4 has shape \(49,\), expected .* 50"):
        rule([*x[:4], x[4][:49], x[5]])
    with pytest.raises(ValueError, match=r"own has shape \(49,\)"):
        rule(x, own=x[0][:49])
    with pytest.raises(TypeError, match="vector 2 is float64 and vector 0 float32"):
        rule([x[0], x[1], x[2].astype(np.float64), *x[3:]])
    with pytest.raises(TypeError, match=r"vector 0 must be of float32.*got int32"):
        rule([v.astype(np.int32) for v in x])
    with pytest.raises(TypeError, match="vector 1 must be an array or a tensor, got list"):
        rule([x[0], [1.0], *x[2:]])
    with pytest.raises(ValueError, match=r"shape \(5, 10\)"):
        rule([v.reshape(5, 10) for v in x])
    with pytest.raises(ValueError, match="got none"):
        rule([])


def test_parameters_and_mixed_kinds_are_taken_and_the_result_is_of_the_first_kind():
    x = honest(5)
    mixed = [torch.nn.Parameter(torch.from_numpy(x[0].copy())), *x[1:]]
    got = aggregate.make("krum:f=1")(mixed)
    assert isinstance(got, torch.Tensor)
    assert not got.requires_grad
    np.testing.assert_array_equal(got.numpy(), aggregate.make("krum:f=1")(x))


def test_empty_vectors_have_an_empty_average():
    assert aggregate.make("nnm+median:f=1")([np.empty(0, np.float32)] * 5).shape == (0,)


def test_one_f_holds_for_all_parts():
    chain = aggregate.make("nnm+trimmed-mean:f=2")
    assert [part.f for part in (*chain.before, chain.rule)] == [2, 2]
    assert aggregate.make("arc+nnm:f=3+median").f == 3
    assert aggregate.make("nnm+krum", f=4).f == 4
    assert aggregate.make("krum").f == 1
    assert aggregate.make("nnm:f=2+mean").f == 2
    assert aggregate.make("nnm+mean", f=2).most(9) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("average", "unknown aggregator 'average'"),
        ("nmm+median", "unknown pre-aggregator 'nmm'"),
        ("nnm", "ends with a pre-aggregation"),
        ("median+krum", "rules come last"),
        ("nnm:f=1+krum:f=2", "f is given twice"),
        ("krum:f=x", "must be an integer"),
        ("krum:k=1", "no option 'k'"),
        ("", "unknown aggregator"),
    ],
)
def test_wrong_specifications_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        aggregate.make(text)


def test_numbers_with_an_exponent_are_no_chain():
    assert aggregate.make("centred-clipping:radius=1e+3").rule.radius == 1000.0


@pytest.mark.parametrize(
    "options", [{"max_norm": 0.0}, {"max_norm": np.inf}, {"max_norm": np.nan}, {"max_age": -1}]
)
def test_bounds_out_of_range_are_refused(options):
    with pytest.raises(ConfigError, match="max_"):
        Screen(**options)


@pytest.mark.parametrize("name", ["median:f=2", "trimmed-mean:f=2", "mean-around-median:f=2"])
def test_one_pass_or_two_give_the_same_average(name):
    """Where the result may lie on an input, or vectors may be too long, they are looked at before."""
    x = honest(7)
    rule, out = aggregate.make(name), np.zeros(D, np.float32)
    expected = rule(x, out=out).copy()
    narrow = aggregate.make(name, screen=Screen(max_norm=1.2 * max(float(np.linalg.norm(v)) for v in x)))
    np.testing.assert_array_equal(narrow(x), expected)  # sqrt(D) times the largest magnitude is beyond
    mine = [v.copy() for v in x]
    np.testing.assert_array_equal(rule(mine, out=mine[3]), expected)
    np.testing.assert_array_equal(rule(x, own=x[1]), expected)
    assert rule.counts == narrow.counts == Counts()
