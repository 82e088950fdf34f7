"""Pauses yield first and sleep then, for longer and longer."""

from __future__ import annotations

import time

from pydec.comm.backoff import Backoff


def test_yields_then_sleeps_up_to_the_limit(monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    backoff = Backoff(spin_s=1.0, least_s=1e-5, most_s=1e-4)
    start_s = time.monotonic()
    backoff.pause(start_s)
    assert slept == []
    for _ in range(20):
        backoff.pause(start_s + 5.0)
    assert slept[0] == 1e-5
    assert slept == sorted(slept)
    assert slept[-1] == 1e-4
    backoff.reset()
    backoff.pause(time.monotonic())
    assert len(slept) == 20
