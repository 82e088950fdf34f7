"""Robust rules on every instruction set, beside eager torch."""

from __future__ import annotations

import pytest

from . import cases_robust


@pytest.mark.benchmark(group="median: 8 vectors of 256 Ki float32")
def bench_median(run_case):
    run_case(cases_robust.median(1 << 18, 8))


@pytest.mark.benchmark(group="trimmed mean: 16 vectors of 256 Ki float32, f=3")
def bench_trimmed_mean(run_case):
    run_case(cases_robust.trimmed_mean(1 << 18, 16, 3))


@pytest.mark.benchmark(group="squared distances of 16 vectors of 256 Ki float32")
def bench_distances(run_case):
    run_case(cases_robust.distances(1 << 18, 16))


@pytest.mark.benchmark(group="CHOCO step with int8 codes and SGD: 4 Mi float32")
def bench_choco_step(run_case):
    run_case(cases_robust.choco_step(1 << 22))
