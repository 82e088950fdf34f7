"""Ranks take turns in virtual time, in an order that depends on nothing but the program."""

from __future__ import annotations

from functools import partial
from math import inf

import pytest

from pydec.comm.baton import Baton, Deadlock


def run(size, body):
    baton = Baton(size)
    baton.run([partial(body, baton, rank) for rank in range(size)])
    return baton


def test_timers_wake_ranks_in_order_of_time_then_rank():
    order = []

    def body(baton, rank):
        for step in (1.0, 1.0, 2.0):
            baton.park(rank, baton.time_s + step / (1 + rank % 2), lambda: "time")
            order.append((baton.time_s, rank))

    run(4, body)
    assert order == sorted(order)
    assert len(order) == 12


def test_events_happen_in_order_of_time_then_of_scheduling():
    seen = []

    def body(baton, rank):
        for name, time_s in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
            baton.at(time_s, lambda name=name: seen.append(name))
        baton.park(rank, 3.0, lambda: "the end")

    assert run(1, body).time_s == 3.0
    assert seen == ["a", "b", "c"]


def test_a_woken_rank_runs_before_time_passes():
    def body(baton, rank):
        if rank == 0:
            baton.park(0, 5.0, lambda: "a friend")
            assert baton.time_s == 0.0
        else:
            baton.wake(0)

    run(2, body)


def test_deadlock_names_everyone():
    seen = []

    def body(baton, rank):
        try:
            baton.park(rank, inf, lambda: f"Godot {rank}")
        except Deadlock as error:
            seen.append(str(error))

    run(2, body)
    assert seen == ["deadlock at 0.000000 s: rank 0 waits for Godot 0; rank 1 waits for Godot 1"] * 2


@pytest.mark.parametrize("size", [1, 7])
def test_ranks_that_never_wait_just_run(size):
    ran = []
    run(size, lambda baton, rank: ran.append(rank))
    assert ran == list(range(size))
