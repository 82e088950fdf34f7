from __future__ import annotations

import numpy as np
import pytest

from pydec.errors import ConfigError
from pydec.topology import ExactMean, MeanStep

SIZES = [*range(1, 65), 100, 243, 1000]


def send_and_receive(plan, x):
    """The plan carried out message by message."""
    sums = [{"inclusive": value.copy(), "exclusive": np.zeros_like(value)} for value in x]
    for round in range(plan.rounds):
        steps = [plan.step(rank, round) for rank in range(plan.size)]
        mail = {(step.to, rank): sums[rank][step.sends].copy() for rank, step in enumerate(steps)}
        assert len(mail) == plan.size
        for rank, step in enumerate(steps):
            arrived = mail.pop((rank, step.source))
            assert steps[step.source].sends == step.sends
            sums[rank]["inclusive"] += arrived
            sums[rank]["exclusive"] += arrived
    return np.array([mine["inclusive"] / plan.size for mine in sums])


@pytest.mark.parametrize("size", SIZES)
def test_is_exact_in_the_fewest_rounds_for_every_size(size):
    plan = ExactMean(size)
    assert plan.rounds == int(np.ceil(np.log2(size)))
    x = np.random.default_rng(size).standard_normal((size, 3))
    result = send_and_receive(plan, x)
    np.testing.assert_allclose(result, np.broadcast_to(x.mean(axis=0), x.shape), atol=1e-13)
    np.testing.assert_array_equal(result, plan.simulate(x))


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_counts_every_rank_once(size):
    counts = ExactMean(size).simulate(np.eye(size)) * size
    np.testing.assert_allclose(counts, 1.0, rtol=1e-15)


def test_nobody_sends_to_itself():
    for size in range(2, 65):
        plan = ExactMean(size)
        for round in range(plan.rounds):
            step = plan.step(0, round)
            assert step.to != 0
            assert step.source != 0


def test_powers_of_two_need_one_sum():
    assert [n for n in range(1, 40) if not ExactMean(n).needs_exclusive] == [1, 2, 4, 8, 16, 32]


def test_six_ranks_do_this():
    plan = ExactMean(6)
    assert repr(plan) == "<ExactMean of 6 ranks in 3 rounds>"
    assert [plan.step(4, t) for t in range(3)] == [
        MeanStep("inclusive", 5, 3),
        MeanStep("exclusive", 5, 3),
        MeanStep("inclusive", 1, 1),
    ]


def test_what_is_outside_is_named():
    with pytest.raises(ConfigError, match="at least 1 rank, got size=0"):
        ExactMean(0)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 6\), got 6"):
        ExactMean(6).step(6, 0)
    with pytest.raises(ValueError, match="rounds 0 to 2, got 3"):
        ExactMean(6).step(0, 3)
