from __future__ import annotations

import pytest

from pydec.consensus.pacemaker import Pacemaker


def test_rounds_get_longer_by_half_up_to_a_limit():
    pace = Pacemaker(initial_s=1.0)
    assert [pace.delay_s(round) for round in (0, 1, 2)] == [1.0, 1.5, 2.25]
    assert pace.delay_s(9) == pace.delay_s(1 << 30) == 1.5**9


def test_the_base_is_four_times_what_nearly_all_rounds_took():
    pace = Pacemaker(initial_s=1.0, least_s=0.01)
    for _ in range(7):
        pace.measured(0.1)
    assert pace.base_s == 1.0  # not enough to go by
    for _ in range(121):
        pace.measured(0.1)
    assert pace.base_s == pytest.approx(0.4)
    pace.measured(50.0)
    assert pace.base_s == pytest.approx(0.4)  # one in a hundred
    pace.measured(2.0)
    assert pace.base_s == pytest.approx(8.0)


def test_the_base_stays_within_its_limits_and_clocks_may_jump():
    pace = Pacemaker(initial_s=1.0, least_s=0.5, most_s=3.0)
    for taken in (-1.0, float("nan"), float("inf")):
        pace.measured(taken)
    for _ in range(20):
        pace.measured(0.001)
    assert pace.base_s == 0.5
    for _ in range(200):
        pace.measured(100.0)
    assert pace.base_s == 3.0


def test_limits_that_cannot_be():
    with pytest.raises(ValueError, match="least_s <= initial_s"):
        Pacemaker(initial_s=0.1, least_s=0.2)
