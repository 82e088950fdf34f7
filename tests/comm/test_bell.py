"""Rings wake whoever waits, never block, and are promised only where every rank hears every other."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading

import pytest

from pydec.comm.bell import Bell, hang
from pydec.comm.progress import Engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract socket names are Linux's")


@pytest.fixture
def bells():
    names = [b"\0pydec-test-" + os.urandom(8).hex().encode() for _ in range(2)]
    found = []
    for rank, name in enumerate(names):
        own = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        own.bind(name)
        found.append(Bell(own, names, rank))
    yield found
    for bell in found:
        bell.close()


def test_a_ring_counts_whether_it_comes_before_or_during_the_wait(bells):
    assert not bells[0].wait(0.001)
    assert bells[1].ring(0)
    assert bells[0].wait(60.0)
    assert not bells[0].wait(0.001)  # one ring, one waking
    threading.Timer(0.05, bells[0].kick).start()
    assert bells[0].wait(60.0)


def test_rings_that_nobody_hears_are_one(bells):
    for _ in range(1000):
        assert bells[1].ring(0)
    woken = 0
    while bells[0].wait(0.001):
        woken += 1
    assert 1 <= woken <= 20


def test_who_is_gone_is_not_rung(bells):
    bells[0].close()
    assert not bells[1].ring(0)


def test_a_thread_sleeps_until_it_is_rung_for(bells):
    calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tick() -> bool:
        calls.put(None)
        return False

    engine = Engine(tick, most_s=3600.0, bell=bells[0])
    for wake in (lambda: bells[1].ring(0), engine.kick):
        while True:  # silence makes the sleeps grow
            try:
                calls.get(timeout=0.3)
            except queue.Empty:
                break
        wake()
        calls.get(timeout=10.0)
    engine.close()  # wakes it, too


def test_a_thread_does_not_look_again_for_what_is_rung_for(bells):
    calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tick() -> bool:
        calls.put(None)
        return True

    engine = Engine(tick, bell=bells[0], most_s=3600.0)
    calls.get(timeout=10.0)
    for _ in range(50):
        bells[1].ring(0)
        calls.get(timeout=10.0)
    engine.close()


def test_a_thread_that_must_look_does_so_unrung(bells):
    looked = threading.Semaphore(0)

    def tick() -> bool:
        looked.release()
        return False

    engine = Engine(tick, bell=bells[0], patient=lambda: False)
    for _ in range(20):
        assert looked.acquire(timeout=10.0)
    engine.close()


class Done:
    """A request that has completed, at its second look."""

    looks = 0

    def Test(self):
        self.looks += 1
        return self.looks > 1


class Comm:
    """Two ranks that are threads."""

    def __init__(self, rank, said, barrier):
        self.rank, self.said, self.barrier = rank, said, barrier

    def Get_rank(self):
        return self.rank

    def Get_size(self):
        return 2

    def Iallgather(self, mine, into):
        self.said[self.rank] = bytes(mine)
        self.barrier.wait(30.0)
        into[:] = b"".join(self.said[rank] for rank in range(2))
        self.barrier.wait(30.0)
        return Done()


def hang_two(theirs=lambda comm: comm):
    said, barrier, found = {}, threading.Barrier(2), {}

    def one(rank):
        comm = Comm(rank, said, barrier)
        found[rank] = hang(theirs(comm) if rank else comm)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_ranks_of_one_machine_hear_each_other():
    found = hang_two()
    while found[0].wait(0.001):
        pass  # they have tried each other's
    assert found[1].ring(0)
    assert found[0].wait(60.0)
    for bell in found.values():
        bell.close()


def test_nobody_has_a_bell_if_one_is_out_of_reach():
    class Elsewhere(Comm):
        """Its sockets are those of another machine."""

        def __init__(self, comm):
            super().__init__(comm.rank, comm.said, comm.barrier)

        def Iallgather(self, mine, into):
            return super().Iallgather(os.urandom(16) if len(mine) == 16 else mine, into)

    assert hang_two(Elsewhere) == {0: None, 1: None}


def test_nobody_has_a_bell_where_they_are_forbidden(monkeypatch):
    class Forbidden(socket.socket):
        def bind(self, name):
            raise PermissionError("no abstract names here")

    monkeypatch.setattr(socket, "socket", Forbidden)
    assert hang_two() == {0: None, 1: None}
