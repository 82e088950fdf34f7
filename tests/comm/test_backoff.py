"""Pauses yield first and sleep then, for longer and longer."""

from __future__ import annotations

import time

import pytest

from pydec.comm.backoff import Backoff, Limit


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


def test_a_limit_does_not_run_on_while_the_process_stands_still():
    limit = Limit(10.0, 5.0)
    assert not limit.passed(10.9)
    assert not limit.passed(70.9)  # a minute of which one second counts
    assert not limit.passed(71.5)
    assert limit.until_s == pytest.approx(74.0)
    assert not limit.passed(72.5)
    assert not limit.passed(73.4)
    assert limit.passed(74.1)
