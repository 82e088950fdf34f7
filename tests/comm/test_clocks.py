"""Clocks of ranks, aligned by questions and answers."""

from __future__ import annotations

import time

import pytest

from pydec.comm.clocks import offset_ns
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Stream

APART_NS = 3_600_000_000_000


@pytest.mark.parametrize("size", [1, 2, 5])
def test_clocks_that_differ_by_hours_agree(size):
    def program(transport):
        def clock_ns():
            return time.perf_counter_ns() + APART_NS * transport.rank

        shift_ns, error_ns = offset_ns(transport.stream(Stream.COLLECT), lambda: 17, clock_ns)
        return shift_ns + APART_NS * transport.rank - 17, error_ns

    for off_ns, error_ns in LocalCluster(size).run(program):
        assert abs(off_ns) <= error_ns + 1
        assert error_ns < 60e9


def test_one_clock_is_left_alone():
    def program(transport):
        return offset_ns(transport.stream(Stream.COLLECT), lambda: -5)

    assert LocalCluster(3).run(program) == [(-5, 0)] * 3
