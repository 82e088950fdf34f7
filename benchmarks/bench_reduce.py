"""Reductions on every instruction set, beside eager torch."""

from __future__ import annotations

import pytest

from . import cases


@pytest.mark.benchmark(group="squared distance: 4 Mi float32")
def bench_sqdist(run_case):
    run_case(cases.sqdist(1 << 22))
