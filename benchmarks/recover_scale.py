"""Asks a running job for more ranks and looks when they train, and what they add."""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    """Request to the first step after it, while the ranks train on and through a start of all; throughput."""
    model, steps = ("0.2 MB", 4) if options.quick else ("40 MB", 40)
    found = grown(model, steps)
    began_s = time.monotonic()
    run_ranks(AFTER, [sys.executable, "-c", _START])
    target_s = time.monotonic() - began_s + MORE_S
    params = {"model": model, "ranks": f"{BEFORE} + {AFTER - BEFORE}", "threads": 1}
    name, took_s = f"request for more ranks to their first step, {model}", found.joined_s
    yield Row("recover", name, params, took_s, "s", "start of mpirun + 3 s", target_s, target_s / took_s)
    again = grown(model, steps, restarted=True)
    peer = "all ranks start again from a checkpoint (--no-fault-tolerance)"
    yield Row("recover", name, params, took_s, "s", peer, again.joined_s, again.joined_s / took_s)
    paused = f"pause of the ranks that take others in, {model}"
    yield Row("recover", paused, params, found.pause_s, "s")
    cores = os.cpu_count() or 1
    if cores >= AFTER:  # else the ranks share what there is, and say nothing about growth
        part = found.before_s / found.after_s
        params |= {"cores": cores, "step_ms": 1e3 * found.before_s}
        name = f"throughput with {AFTER - BEFORE} ranks more, of linear"
        yield Row("recover", name, params, 100 * part, "%", "target", 100 * LINEAR, part / LINEAR)


@dataclass(frozen=True)
class Grown:
    """What a request for more ranks came to.

    Args:
        joined_s: seconds from the request to the first step after it.
        pause_s: between the last step of the old ranks before and their first after it; 0 if they started
            again.
        before_s, after_s: median seconds of a step.
    """

    joined_s: float
    pause_s: float
    before_s: float
    after_s: float


def grown(model: str, steps: int, *, restarted: bool = False) -> Grown:
    """Train on some ranks, ask for more, and train on.

    Args:
        model: a name of ``_TASKS``.
        steps: to take before and after.
        restarted: whether all ranks start again for it.
    """
    with tempfile.TemporaryDirectory() as name:
        task = f"stdlib-lm:{_TASKS[model]},context=8,windows=8"
        words = f"train {task} --batch-size 4 --steps 100000 --compressor none --threads 1 --quiet"
        words += f" --log-every 100000 --eval-every 100000 --run-dir {name}/run"
        metrics = Path(name) / "run/metrics/rank-0.jsonl"
        how = ["--no-fault-tolerance"] if restarted else []
        with started_ranks(BEFORE, [*how, *words.split()]) as job:
            before = _steps(metrics, steps, job)
            began_s = time.monotonic()
            line = json.dumps(asdict(Request(f"={AFTER}", oversubscribe=True)))
            if not ask(find(pid=job.pid), line, lambda said: None):
                raise ConfigError(f"the job did not go on with {AFTER} ranks")
            joined_s = time.monotonic() - began_s
            reached = len(_read(metrics))
            after = _steps(metrics, reached + steps, job)[reached:]
            pauses = [row["pause_s"] for row in _rows(metrics) if "pause_s" in row]
    if bool(pauses) == restarted:
        raise ConfigError(f"the ranks {'did not start' if restarted else 'started'} again")
    return Grown(joined_s, sum(pauses), statistics.median(before[1:]), statistics.median(after[1:]))


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
    return [float(row["step_s"]) for row in _rows(metrics)]


def _rows(metrics: Path) -> list[dict[str, Any]]:
    """What is written down of steps so far."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # the last one is being written
        if row["kind"] == "step":
            found.append(row)
    return found
