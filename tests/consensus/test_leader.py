from __future__ import annotations

from collections import Counter

import pytest

from pydec.consensus.leader import advance, later_leader

from .samples import keys_and_table


def rotation(table, steps, eligible=None):
    priorities, leaders = (0,) * len(table), []
    for _ in range(steps):
        leader, priorities = advance(table, priorities, range(len(table)) if eligible is None else eligible)
        leaders.append(leader)
    return leaders


def test_each_leads_in_proportion_to_stake_and_spread_out():
    _, table = keys_and_table([5, 3, 1, 1])
    leaders = rotation(table, 100)
    assert Counter(leaders) == {0: 50, 1: 30, 2: 10, 3: 10}
    assert all(Counter(leaders[i : i + 10]) == {0: 5, 1: 3, 2: 1, 3: 1} for i in range(0, 100, 10))
    assert leaders[:10].count(0) == 5
    assert "000" not in "".join(map(str, leaders))


def test_equal_stakes_take_turns_in_order():
    _, table = keys_and_table([7] * 4)
    assert rotation(table, 8) == [0, 1, 2, 3, 0, 1, 2, 3]


def test_only_the_eligible_lead_and_the_sum_of_priorities_stays():
    _, table = keys_and_table([5, 3, 0, 1])
    priorities = tuple([0] * 4)
    for _ in range(50):
        leader, priorities = advance(table, priorities, [1, 2, 3])
        assert leader in (1, 3)
        assert sum(priorities) == 0
        assert max(map(abs, priorities)) <= table.total


def test_without_an_eligible_one_all_may_lead():
    _, table = keys_and_table([1, 0, 1])
    assert set(rotation(table, 9, eligible=[])) == {0, 2}
    assert set(rotation(table, 9, eligible=[1])) == {0, 2}


def test_priorities_of_another_table_are_refused():
    _, table = keys_and_table([1, 1])
    with pytest.raises(ValueError, match="as many priorities"):
        advance(table, (0,), [0])


@pytest.mark.parametrize("stakes", [[1], [1, 1], [1] * 4, [32, 30, 20, 18], [9, 1, 1], [0, 5, 0, 1]])
def test_later_rounds_pass_over_the_leader_that_failed_and_reach_everybody(stakes):
    _, table = keys_and_table(stakes)
    able = {index for index, stake in enumerate(stakes) if stake}
    for height in range(6):
        for first in able:
            leaders = [later_leader(table, height, round, first) for round in range(1, 60)]
            assert leaders[0] != first or len(able) == 1
            assert set(leaders) == able


def test_no_long_row_of_leaders_with_less_than_a_third():
    """The liveness bound: with equal stakes at most f leaders in a row are faulty."""
    _, table = keys_and_table([1] * 10)
    leaders = [later_leader(table, 5, round, 0) for round in range(1, 100)]
    faulty = {1, 2, 3}
    runs = "".join("x" if leader in faulty else " " for leader in leaders).split(" ")
    assert max(map(len, runs)) <= 3


def test_round_0_is_not_its_business():
    _, table = keys_and_table([1])
    with pytest.raises(ValueError, match="start at 1"):
        later_leader(table, 1, 0, 0)
