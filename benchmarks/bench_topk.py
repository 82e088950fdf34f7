"""Exact top-k with error feedback on every instruction set, beside eager torch."""

from __future__ import annotations

import pytest

from . import cases


@pytest.mark.benchmark(group="top-k 1 % with feedback: 4 Mi float32")
def bench_topk(run_case):
    run_case(cases.topk(1 << 22, 0.01))
