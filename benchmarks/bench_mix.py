"""Weighted sum of three vectors on every instruction set, beside eager torch."""

from __future__ import annotations

import pytest

from . import cases


@pytest.mark.benchmark(group="mix: 3 vectors of 4 Mi float32")
def bench_mix(run_case):
    run_case(cases.mix(1 << 22, 3))
