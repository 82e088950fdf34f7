"""The thread beside the program: it goes on, it sleeps, it ends, and it hides no error."""

from __future__ import annotations

import queue
import threading

import pytest

from pydec.comm.progress import Engine


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
