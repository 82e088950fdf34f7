"""Blockwise int8 on every instruction set, beside eager torch."""

from __future__ import annotations

import pytest

from . import cases


@pytest.mark.benchmark(group="int8 encode: 4 Mi float32")
def bench_int8_encode(run_case):
    run_case(cases.int8_encode(1 << 22))


@pytest.mark.benchmark(group="int8 decode + accumulate: 2 messages of 4 Mi")
def bench_int8_accumulate(run_case):
    run_case(cases.int8_accumulate(1 << 22, 2))
