"""Every rule against its definition in NumPy; what all rules have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pydec import aggregate, kernels
from pydec.errors import ConfigError
from tests.aggregate import references

RULES = list(aggregate.aggregators)
ROBUST = [name for name in RULES if name != "mean"]


def spec(name, f):
    return name if name == "mean" else f"{name}:f={f}"


def vectors(n, d, seed=0, dtype=np.float32):
    """Unequal sizes, so that what is chosen does not hang on rounding."""
    draw = np.random.default_rng(seed)
    return [(draw.standard_normal(d) * (1 + 0.1 * k)).astype(dtype) for k in range(n)]


def test_every_rule_has_a_reference():
    assert set(references.RULES) == set(RULES)
    assert {*references.BEFORE, "bucketing"} == set(aggregate.preaggregators)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("n", "f"), [(3, 0), (7, 1), (11, 2), (15, 3)])
@pytest.mark.parametrize("d", [1, 17, 300])
def test_rules_are_their_definitions(name, n, f, d):
    x = vectors(n, d, seed=n + d)
    got = aggregate.make(spec(name, f))(x)
    expected = references.RULES[name](np.stack(x).astype(np.float64), f)
    np.testing.assert_allclose(got, expected, atol=2e-5 if name == "geometric-median" else 3e-6)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("before", sorted(references.BEFORE))
def test_steps_before_a_rule_are_their_definitions(name, before):
    x = vectors(11, 200, seed=5)
    got = aggregate.make(f"{before}:f=2+{spec(name, 2)}")(x)
    mixed = references.BEFORE[before](np.stack(x).astype(np.float64), 2)
    expected = references.RULES[name](mixed, 2)
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["median", "krum", "geometric-median"])
def test_chains_of_two_steps_are_one_after_the_other(name):
    x = vectors(11, 40_000, seed=8)
    got = aggregate.make(f"arc+nnm+{name}:f=2")(x)
    mixed = references.nnm(references.arc(np.stack(x).astype(np.float64), 2), 2)
    np.testing.assert_allclose(got, references.RULES[name](mixed, 2), atol=1e-5)


def test_bucketing_averages_a_random_partition():
    x = vectors(7, 50)
    rule = aggregate.make("bucketing:size=3+median:f=1", seed=4)
    order = np.random.Generator(np.random.PCG64([4, 1])).permutation(7)
    stacked = np.stack(x).astype(np.float64)
    buckets = [stacked[order[start : start + 3]].mean(axis=0) for start in (0, 3, 6)]
    np.testing.assert_allclose(rule(x), np.median(buckets, axis=0), atol=1e-6)
    assert not np.array_equal(rule(x), rule(x))  # other buckets in every call


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_all_types_of_tensors_and_arrays(name, dtype):
    x = [torch.from_numpy(v).to(getattr(torch, dtype)) for v in vectors(9, 1000, seed=2)]
    got = aggregate.make(spec(name, 1))(x)
    assert isinstance(got, torch.Tensor)
    assert got.dtype == getattr(torch, dtype)
    expected = references.RULES[name](np.stack([v.double().numpy() for v in x]), 1)
    tolerance = {"float32": 2e-5, "float64": 2e-5, "float16": 3e-3, "bfloat16": 3e-2}[dtype]
    np.testing.assert_allclose(got.double().numpy(), expected, atol=tolerance)
    if dtype != "bfloat16":
        arrays = aggregate.make(spec(name, 1))([v.numpy() for v in x])
        assert isinstance(arrays, np.ndarray)
        np.testing.assert_array_equal(arrays, got.numpy())


@pytest.mark.parametrize("name", RULES)
def test_the_number_of_threads_changes_no_bit(name):
    x = vectors(9, 70_001, seed=3)
    before = kernels.num_threads()
    try:
        found = []
        for threads in (1, 3):
            kernels.set_num_threads(threads)
            found.append(aggregate.make(spec(name, 1))(x, own=x[0]))
    finally:
        kernels.set_num_threads(before)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("name", [name for name in RULES if name != "centred-clipping"])  # it begins there
def test_the_own_model_moves_nothing_but_the_last_bits(name):
    x = vectors(9, 500, seed=6)
    rule = aggregate.make(spec(name, 1))
    np.testing.assert_allclose(rule(x, own=x[2]), rule(x), atol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_the_result_may_take_the_place_of_a_vector(name):
    x = vectors(9, 20_000, seed=7)
    rule = aggregate.make(f"nnm:f=1+{spec(name, 1)}")
    expected = rule(x)
    assert rule(x, out=x[4]) is x[4]
    np.testing.assert_array_equal(x[4], expected)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("where", [1e3, -1e15])
def test_f_vectors_far_away_move_the_average_by_no_more_than_the_honest_spread(name, where):
    honest = vectors(9, 100, seed=1)
    bad = [np.full(100, where, np.float32)] * 2
    got = aggregate.make(spec(name, 2))([*bad, *honest])
    mean = np.stack(honest).mean(axis=0)
    spread = max(np.linalg.norm(v - mean) for v in honest)
    assert np.linalg.norm(got - mean) <= 1.5 * spread


@pytest.mark.parametrize("name", ROBUST)
def test_too_large_an_f_is_refused_with_the_numbers(name):
    part = aggregate.aggregators.get(name)(f=3)
    least = part.least(3)
    assert part.most(least) == 3
    assert part.most(least - 1) == 2
    with pytest.raises(
        ConfigError, match=rf"{name} with f=3 needs n >= .* = {least} vectors, got {least - 1}; .* 2"
    ):
        aggregate.make(spec(name, 3))(vectors(least - 1, 4))
    aggregate.make(spec(name, 3))(vectors(least, 4))


def test_the_mean_refuses_any_f():
    with pytest.raises(ConfigError, match="got f=1"):
        aggregate.make("mean", f=1)


def test_bucketing_is_checked_after_it():
    with pytest.raises(
        ConfigError, match=r"trimmed-mean with f=2 needs .* = 5 vectors, got 4; the largest f for 4 is 1"
    ):
        aggregate.make("bucketing:size=2+trimmed-mean:f=2")(vectors(8, 3))


def test_mda_says_how_many_it_can_search():
    with pytest.raises(ConfigError, match="at most 20 vectors, got 21"):
        aggregate.make("mda:f=2")(vectors(21, 3))


def test_mda_searches_twenty_vectors_with_many_equal_distances():
    x = [np.eye(20, dtype=np.float32)[k] for k in range(20)]
    np.testing.assert_allclose(
        aggregate.make("mda:f=9")(x), np.r_[np.full(11, 1 / 11), np.zeros(9)], atol=1e-6
    )


@pytest.mark.parametrize(
    "text",
    [
        "geometric-median:nu=0",
        "centred-clipping:radius=-1",
        "multi-krum:m=-1",
        "krum:f=-1",
        "centred-clipping:iterations=0",
    ],
)
def test_options_out_of_range_are_refused(text):
    with pytest.raises(ConfigError, match="must be"):
        aggregate.make(text)


def test_multi_krum_refuses_more_than_its_proof_allows():
    with pytest.raises(ConfigError, match="at most n - f - 2 = 5 of 9, got m=6"):
        aggregate.make("multi-krum:f=2,m=6")(vectors(9, 3))
