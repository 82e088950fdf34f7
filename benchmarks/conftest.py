"""What the bench_*.py files share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pydec import kernels

from .cases import Case
from .harness import threads

CONTENDERS = [*kernels.targets(), "torch"]


@pytest.fixture(params=CONTENDERS)
def run_case(request: pytest.FixtureRequest, benchmark: Any) -> Iterator[Callable[[Case], None]]:
    """Times a case on one instruction set, or its peer in eager torch on one thread, and checks it.

    Adds the bytes that must move, over the median time, as GB/s (1e9 bytes per second).
    """
    before = kernels.target()
    if request.param != "torch":
        kernels.set_target(request.param)

    def run(case: Case) -> None:
        benchmark(case.peers["torch eager"] if request.param == "torch" else case.ours)
        if benchmark.stats is not None:  # with --benchmark-disable nothing is timed
            benchmark.extra_info["GB/s"] = round(case.n_bytes * 1e-9 / benchmark.stats.stats.median, 2)
        case.check()

    with threads(1):
        yield run
    kernels.set_target(before)
