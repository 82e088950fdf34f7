"""Work beside the program: a thread that sleeps and hides no error; events on the local cluster."""

from __future__ import annotations

import queue
import threading

import pytest

from pydec.comm.local import LocalCluster, LocalTransport
from pydec.comm.progress import Engine
from pydec.errors import PeerLost


def test_calls_on_until_closed() -> None:
    enough, calls = threading.Event(), []

    def tick() -> bool:
        calls.append(threading.current_thread())
        if len(calls) == 5:
            enough.set()
        return len(calls) % 2 == 0

    engine = Engine(tick)
    assert enough.wait(10.0)
    engine.close()
    done = len(calls)
    engine.close()
    assert len(calls) == done
    assert threading.current_thread() not in calls
    assert not any(thread.is_alive() for thread in calls)


def test_an_error_ends_the_thread_and_is_raised_by_close() -> None:
    called = threading.Event()

    def tick() -> bool:
        called.set()
        raise ArithmeticError("bad tick")

    engine = Engine(tick)
    assert called.wait(10.0)
    with pytest.raises(ArithmeticError, match="bad tick"):
        engine.close()
    engine.close()


def test_a_kick_ends_a_long_sleep() -> None:
    calls: queue.SimpleQueue[None] = queue.SimpleQueue()

    def tick() -> bool:
        calls.put(None)
        return False

    engine = Engine(tick, most_s=3600.0)
    while True:  # silence makes the sleeps grow, up to an hour
        try:
            calls.get(timeout=0.2)
        except queue.Empty:
            break
    engine.kick()
    calls.get(timeout=10.0)
    engine.close()


def test_background_work_follows_messages_while_its_rank_computes() -> None:
    """Rank 0 answers each message of rank 1 from the background of one long computation."""

    def program(transport: LocalTransport) -> list[float]:
        if transport.rank == 1:
            times = []
            for tag in range(3):
                answer = transport.irecv(0, tag, memoryview(bytearray(1)))
                transport.isend(0, tag, memoryview(b"?"))
                answer.wait()
                times.append(transport.now())
            return times
        into, tags = bytearray(1), iter(range(4))
        tag = next(tags)
        asked = transport.irecv(1, tag, memoryview(into))

        def tick() -> bool:
            nonlocal asked, tag
            if not asked.done():
                return False
            transport.isend(1, tag, memoryview(b"!"))
            tag = next(tags)
            asked = transport.irecv(1, tag, memoryview(into))
            return True

        work = transport.background(tick)
        transport.sleep(10.0)
        work.close()
        return [transport.now()]

    answered, (ended,) = reversed(LocalCluster(2, delay_s=0.1).run(program))
    assert answered == pytest.approx([0.2, 0.4, 0.6])
    assert ended == pytest.approx(10.0)


def test_background_work_sees_that_a_peer_is_gone() -> None:
    def program(transport: LocalTransport) -> list[str]:
        if transport.rank == 1:
            transport.sleep(1.0)
            raise ArithmeticError("gone")
        seen: list[str] = []
        receive = transport.irecv(1, 0, memoryview(bytearray(1)))

        def tick() -> bool:
            try:
                receive.done()
            except PeerLost as error:
                seen.append(str(error))
            return False

        transport.background(tick)
        transport.sleep(2.0)
        results.extend(seen)
        return seen

    results: list[str] = []
    with pytest.raises(ArithmeticError):
        LocalCluster(2).run(program)
    assert len(results) == 1
    assert "rank 1 is gone" in results[0]
