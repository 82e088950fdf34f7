"""Settings of torch that decide whether the same command gives the same bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from pydec.comm import detect


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Deterministic operations on a fixed number of threads; restored afterwards.

    Operations that have no deterministic form warn.

    Args:
        threads: threads of an operation; 0 takes this rank's part of the machine, see ``own_cores``.
    """
    before = torch.get_num_threads()
    deterministic = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    settings: Any = torch.utils.deterministic  # a module whose attributes torch makes at run time
    fill = settings.fill_uninitialized_memory
    torch.set_num_threads(threads or own_cores())
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = False  # costs a pass over every new tensor
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        settings.fill_uninitialized_memory = fill


def own_cores() -> int:
    """Cores that this rank should use: those it is bound to, or an equal part of the machine's."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    launched = detect.launch()
    if launched is None or not launched.local_size:
        return available
    bound = available * launched.local_size <= (os.cpu_count() or 1)
    return available if bound else max(1, available // launched.local_size)
