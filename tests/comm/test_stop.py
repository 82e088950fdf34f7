"""A signal on one rank stops all of them; over MPI see tests/mpi and tests/launch."""

from __future__ import annotations

import os
import signal

import pytest

from pydec.comm.faults import Death
from pydec.comm.local import LocalCluster, solo
from pydec.comm.stop import MEET, StopGuard
from pydec.comm.transport import Stream
from pydec.errors import Stopped


def test_a_stop_on_one_rank_ends_the_waits_of_all():
    def program(transport):
        with StopGuard(transport) as guard:
            if transport.rank == 2:
                transport.sleep(1.0)
                guard.request(signal.SIGTERM)
            with pytest.raises(Stopped) as caught:
                transport.irecv((transport.rank + 1) % transport.size, 0, bytearray(1)).wait()
            with pytest.raises(Stopped):
                guard.check()
            assert guard.goodbye()
        return caught.value.signum, caught.value.origin, transport.now()

    results = LocalCluster(4).run(program)
    assert [result[:2] for result in results] == [(15, 2)] * 4
    assert max(result[2] for result in results) < 1.1


def test_a_program_that_never_waits_sees_the_stop_in_check():
    def program(transport):
        with StopGuard(transport) as guard:
            for step in range(1000):
                if transport.rank == 0 and step == 10:
                    guard.request(signal.SIGINT)
                try:
                    guard.check()
                except Stopped as stopped:
                    return stopped.signum, stopped.origin
                transport.sleep(0.1)
        return None

    assert LocalCluster(3).run(program) == [(2, 0)] * 3


def test_all_ranks_may_get_the_signal_at_once():
    def program(transport):
        with StopGuard(transport) as guard:
            guard.request(signal.SIGTERM)
            with pytest.raises(Stopped):
                guard.check()
            return guard.goodbye()

    assert LocalCluster(5).run(program) == [True] * 5


def test_goodbye_waits_for_the_slow_and_not_for_ever():
    def program(transport):
        guard = StopGuard(transport)
        transport.sleep(float(transport.rank) * 4.0)
        return guard.goodbye(5.0), transport.now()

    assert LocalCluster(2).run(program) == [(True, 4.0), (True, 4.0)]
    (alone, _), (early, _), _ = LocalCluster(3).run(program)
    assert alone is False
    assert early is True


def test_other_messages_on_the_control_stream_stop_nobody():
    def program(transport):
        transport.stream(Stream.CONTROL).post(1 - transport.rank, b"hello")
        with StopGuard(transport) as guard:
            guard.check()

    LocalCluster(2).run(program)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_handlers_set_a_flag_and_are_restored(signum):
    before = signal.getsignal(signum)
    with StopGuard(solo()) as guard:
        os.kill(os.getpid(), signum)
        with pytest.raises(Stopped, match=f"signal {int(signum)}, received by rank 0"):
            guard.check()
        assert guard.goodbye()
    assert signal.getsignal(signum) is before


def counting(steps: int, waits: bool, asked_at: int, signalled: int):
    """A program of steps, in each of which a rank waits for the one before it on the ring."""

    def program(transport):
        size, rank = transport.size, transport.rank
        done = 0
        with StopGuard(transport) as guard, guard.defer(lambda: done + 1):
            for step in range(1, steps + 1):
                if rank == signalled and step == asked_at:
                    guard.request(signal.SIGTERM)
                transport.sleep(0.01 * (rank + 1))
                if waits:
                    into = bytearray(1)
                    send = transport.isend((rank + 1) % size, step, memoryview(b"x"))
                    transport.irecv((rank - 1) % size, step, memoryview(into)).wait()
                    send.wait()
                guard.check()
                done = step
                if guard.reached(step):
                    with pytest.raises(Stopped, match="signal 15"):
                        guard.check()
                    return step, True
        return done, False

    return program


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize("signalled", [0, 3])
def test_a_deferred_stop_ends_all_ranks_at_one_step(waits, signalled):
    results = LocalCluster(4).run(counting(40, waits, 10, signalled))
    assert len(set(results)) == 1
    step, stopped = results[0]
    assert stopped
    assert 10 <= step <= 40


@pytest.mark.parametrize("dead", [0, 3])
def test_a_rank_that_dies_while_they_agree_does_not_split_the_others(dead):
    """The one that is furthest ahead dies, or the one that was asked to stop; notes of it reach some."""
    for seed in range(25):
        cluster = LocalCluster(4, seed, delay_s=(1e-3, 0.03), deaths={dead: Death((0.38, 0.5), (0.0, 0.05))})
        results = cluster.run(counting(80, False, 10, 3))
        assert len({results[rank] for rank in range(4) if rank != dead}) == 1, (seed, results)


def test_a_deferred_stop_of_a_peer_alone_is_at_once():
    with StopGuard(solo()) as guard, guard.defer(lambda: 7):
        assert not guard.reached(6)
        guard.request(signal.SIGINT)
        guard.check()
        assert guard.reached(7)


def test_a_rank_that_does_not_defer_ends_the_others_at_once():
    def program(transport):
        with StopGuard(transport) as guard:
            if transport.rank == 0:
                guard.request(signal.SIGTERM)
                with pytest.raises(Stopped):
                    guard.check()
                return guard.goodbye()
            with guard.defer(lambda: 1), pytest.raises(Stopped):
                _steps_for_ever(transport, guard)
            return guard.goodbye()

    assert LocalCluster(3).run(program) == [True] * 3


def meeting(steps: int, asked_at: int, signalled: int):
    """As ``counting``: a rank asks all to meet, and gets a signal when it is too late to stop anybody."""

    def program(transport):
        done = 0
        with StopGuard(transport) as guard, guard.defer(lambda: done + 1):
            for step in range(1, steps + 1):
                if transport.rank == signalled and step == asked_at:
                    guard.request(MEET)
                transport.sleep(0.01 * (transport.rank + 1))
                guard.check()
                done = step
                if guard.reached(step):
                    assert guard.meets
                    guard.request(signal.SIGTERM)
                    guard.check()
                    return step, guard.unheard
        for _ in range(30):  # what comes after training
            transport.sleep(0.01)
            guard.check()
        return done, guard.unheard

    return program


@pytest.mark.parametrize("signalled", [0, 3])
def test_all_ranks_meet_at_one_step_and_nothing_is_raised(signalled):
    results = LocalCluster(4).run(meeting(40, 10, signalled))
    assert len(set(results)) == 1
    step, unheard = results[0]
    assert 10 <= step <= 40
    assert unheard == signal.SIGTERM


def test_who_is_asked_to_meet_after_its_last_step_goes_on_as_if_nobody_had_asked():
    """Rank 0 is done long before; the others then have no step in common with it."""
    results = LocalCluster(4).run(meeting(3, 3, 3))
    assert [step for step, _ in results] == [3] * 4


def _steps_for_ever(transport, guard):
    for step in range(1, 1000):
        transport.sleep(0.01)
        assert not guard.reached(step)
