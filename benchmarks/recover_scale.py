"""Asks a running job for more ranks and looks when they train, and what they add."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pydec.errors import ConfigError
from pydec.launch.door import ask, find
from pydec.launch.scale import Request

from .harness import Options, Row
from .jobs import Started, run_ranks, started_ranks

BEFORE, AFTER = 2, 4
MORE_S = 3.0  # that joining may take beside the start of mpirun
LINEAR = 0.9
_TASKS = {"0.2 MB": "width=64,layers=1", "40 MB": "width=640,layers=2"}
_START = "from pydec.comm.mpi import open_mpi; open_mpi().close()"
_LIMIT_S = 240.0


def rows(options: Options) -> Iterator[Row]:
    """Request to the first step after it, beside the start of as many ranks that do nothing; throughput."""
    model, steps = ("0.2 MB", 4) if options.quick else ("40 MB", 40)
    joined_s, before_s, after_s = grown(model, steps)
    began_s = time.monotonic()
    run_ranks(AFTER, [sys.executable, "-c", _START])
    target_s = time.monotonic() - began_s + MORE_S
    params = {"model": model, "ranks": f"{BEFORE} + {AFTER - BEFORE}", "threads": 1}
    name = f"request for more ranks to their first step, {model}"
    yield Row("recover", name, params, joined_s, "s", "start of mpirun + 3 s", target_s, target_s / joined_s)
    cores = os.cpu_count() or 1
    if cores >= AFTER:  # else the ranks share what there is, and say nothing about growth
        part = before_s / after_s
        params |= {"cores": cores, "step_ms": 1e3 * before_s}
        name = f"throughput with {AFTER - BEFORE} ranks more, of linear"
        yield Row("recover", name, params, 100 * part, "%", "target", 100 * LINEAR, part / LINEAR)


def grown(model: str, steps: int) -> tuple[float, float, float]:
    """Train on some ranks, ask for more, and train on.

    Args:
        model: a name of ``_TASKS``.
        steps: to take before and after.

    Returns:
        Seconds from the request to the first step after it; median seconds of a step before and after.
    """
    with tempfile.TemporaryDirectory() as name:
        task = f"stdlib-lm:{_TASKS[model]},context=8,windows=8"
        words = f"train {task} --batch-size 4 --steps 100000 --compressor none --threads 1 --quiet"
        words += f" --log-every 100000 --eval-every 100000 --run-dir {name}/run"
        metrics = Path(name) / "run/metrics/rank-0.jsonl"
        with started_ranks(BEFORE, words.split()) as job:
            before = _steps(metrics, steps, job)
            began_s = time.monotonic()
            line = json.dumps(asdict(Request(f"={AFTER}", oversubscribe=True)))
            if not ask(find(pid=job.pid), line, lambda said: None):
                raise ConfigError(f"the job did not go on with {AFTER} ranks")
            joined_s = time.monotonic() - began_s
            reached = len(_read(metrics))
            after = _steps(metrics, reached + steps, job)[reached:]
    return joined_s, statistics.median(before[1:]), statistics.median(after[1:])


def _steps(metrics: Path, count: int, job: Started) -> list[float]:
    """Seconds of each step, once so many are written down."""
    until_s = time.monotonic() + _LIMIT_S
    while len(found := _read(metrics)) < count:
        job.check()
        if time.monotonic() > until_s:
            raise RuntimeError(f"{count} steps took more than {_LIMIT_S:g} s")
        time.sleep(0.05)
    return found


def _read(metrics: Path) -> list[float]:
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last one is being written
        if row["kind"] == "step":
            found.append(float(row["step_s"]))
    return found
