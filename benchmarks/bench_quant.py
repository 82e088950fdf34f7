"""Quantisers on every instruction set, beside eager torch."""

from __future__ import annotations

import pytest

from . import cases_quant


@pytest.mark.benchmark(group="int8 encode: 4 Mi float32")
def bench_int8_encode(run_case):
    run_case(cases_quant.encode(1 << 22, "int8", feedback=False))


@pytest.mark.benchmark(group="int8 decode + accumulate: 2 messages of 4 Mi")
def bench_int8_accumulate(run_case):
    run_case(cases_quant.accumulate(1 << 22, "int8", 2))
