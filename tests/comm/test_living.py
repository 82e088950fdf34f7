"""What all living ranks do together while some of them die, over many seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pydec.comm.collect import exact_mean
from pydec.comm.faults import Death, Killed
from pydec.comm.group import Group
from pydec.comm.living import broadcast_to_living, living, mean_of_living
from pydec.comm.local import LocalCluster
from pydec.errors import PeerTimeout

SIZE = 5


def session(transport, rounds=6, n=3000):
    """Means and members of one call after the other; a mean is of 2^rank, so it names who took part."""
    found = []
    for number in range(rounds):
        x = np.full(n, float(2**transport.rank), np.float64)

        def work(group, x=x):
            copy = x.copy()
            (exact_mean if number % 2 else mean_of)(group, copy)  # noqa: B023  # called at once
            return group.members, copy

        members, mean = living(transport).run(work)
        assert np.all(np.abs(mean - sum(2.0**m for m in members) / len(members)) < 1e-9)
        assert set(x) == {2.0**transport.rank}
        found.append(members)
        transport.sleep(1e-3)
    return found, living(transport).attempts


def mean_of(group, x):
    mean_of_living(group, x)


SEEDS = pytest.mark.parametrize("seeds", [20, pytest.param(200, marks=pytest.mark.slow)])


@SEEDS
@pytest.mark.parametrize("dying", [1, 2, 4])
def test_survivors_have_the_same_results_whoever_dies_whenever(dying, seeds):
    died = retried = 0
    for seed in range(seeds):
        ranks = np.random.default_rng(seed).permutation(SIZE)[:dying]
        deaths = {int(rank): Death((0.0, 0.012), noticed_s=(0.0, 0.003)) for rank in ranks}
        cluster = LocalCluster(SIZE, seed, delay_s=(1e-5, 1e-3), deaths=deaths)
        results = [result for result in cluster.run(session) if result is not None]
        survivors = {rank for rank in range(SIZE) if not isinstance(cluster.errors[rank], Killed)}
        assert all(result == results[0] for result in results)
        found, attempts = results[0]
        assert all(survivors <= set(members) for members in found)
        assert all(set(later) <= set(earlier) for earlier, later in itertools.pairwise(found))
        died += SIZE - len(survivors)
        retried += attempts > len(found)
    assert died > seeds // 3
    assert retried > seeds // 12


@SEEDS
def test_deaths_that_cascade_through_the_vote_do_not_split_the_survivors(seeds):
    for seed in range(seeds):
        at_s = np.random.default_rng(seed).uniform(1e-3, 4e-3)
        deaths = {rank: Death(at_s + 2e-4 * rank, noticed_s=(0.0, 2e-3)) for rank in range(4)}
        cluster = LocalCluster(7, seed, delay_s=(1e-5, 5e-4), deaths=deaths)
        results = [result for result in cluster.run(session) if result is not None]
        assert len(results) >= 3
        assert all(result == results[0] for result in results)
        assert {4, 5, 6} <= set(results[0][0][-1])


def test_everyone_gets_the_bytes_of_the_first_who_lives():
    def program(transport):
        data = np.full(6000, transport.rank, np.uint8)
        transport.sleep(1.0)
        broadcast_to_living(transport, data)
        return set(data.tolist())

    assert LocalCluster(3, deaths={0: Death(0.5)}).run(program) == [None, {1}, {1}]
    assert LocalCluster(3).run(program) == [{0}, {0}, {0}]


def test_nothing_is_voted_where_nobody_outlives_a_death():
    def program(transport):
        x = np.full(100, float(transport.rank), np.float32)
        mean_of_living(transport, x)
        return x[0], living(transport).attempts, living(transport).first

    assert LocalCluster(3).run(program) == [(1.0, 0, 0)] * 3


def test_a_rank_that_only_hangs_is_a_timeout_on_the_others():
    def program(transport):
        if transport.rank == 1:
            transport.sleep(9.0)
            return 0.0
        try:
            living(transport).run(lambda group: mean_of_living(group, np.zeros(9)))
        except PeerTimeout as error:
            return str(error)
        return ""

    cluster = LocalCluster(3, deaths={1: Death(8.0)}, deadline_s=2.0)
    assert "rank 1 let 2 s pass: no message from rank 1" in str(cluster.run(program)[2])


def test_a_group_numbers_its_members_from_0_and_has_one_stream():
    def program(transport):
        group = Group(transport, (0, 2, 3))
        assert group.stream(transport.stream_id) is group
        x = np.full(5, float(transport.rank))
        mean_of_living(group, x)
        return group.rank, x[0]

    results = LocalCluster(4).run(lambda t: None if t.rank == 1 else program(t))
    assert results == [(0, 5 / 3), None, (1, 5 / 3), (2, 5 / 3)]
