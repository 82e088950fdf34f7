"""Many scenarios: in parallel processes, one file each, so that whoever is interrupted goes on later."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydec.errors import PydecError, SetupError
from pydec.simulate.memory import free_bytes
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario

_FORMAT = 1  # of the files of cells; others are done again
_SHARE = 0.9  # of free memory, for all processes together


@dataclass(frozen=True)
class Cell:
    """One scenario of a sweep.

    Args:
        label: what is special about it: option by name.
        scenario: checked.
    """

    label: Mapping[str, str]
    scenario: Scenario

    @property
    def key(self) -> str:
        """Name of its file: what it is made of, in hexadecimal."""
        fields = {**asdict(replace(self.scenario, memory_bytes=0)), "label": dict(self.label)}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]

    def words(self) -> str:
        """For a legend."""
        return ", ".join(f"{name} {value}" for name, value in self.label.items())


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    Args:
        label: see ``Cell``.
        rows: see ``run.Outcome``; empty if it failed.
        summary: the same; ``error`` says why it failed.
    """

    label: Mapping[str, str]
    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def sweep(
    cells: Sequence[Cell], folder: Path, jobs: int, show: Callable[[int, Result | None], None]
) -> list[Result]:
    """Simulate all cells that ``folder`` has no result of.

    Args:
        cells: in the order of the table.
        folder: where results are, and go.
        jobs: processes at a time.
        show: called with the number of cells that are done, and the newest; None for what was there.

    Returns:
        All results, in the order of the cells. A cell that fails is one with an ``error``, and is tried again
        the next time.

    Raises:
        SetupError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[str, Result | None] = {cell.key: _read(folder, cell) for cell in cells}
        todo = [cell for cell in cells if found[cell.key] is None]
        show(len(cells) - len(todo), None)
        for cell, new in _done(todo, jobs):
            found[cell.key] = new
            if "error" not in new.summary:
                _write(folder / f"{cell.key}.json", new)
            show(sum(each is not None for each in found.values()), new)
    except OSError as error:
        raise SetupError(f"cannot write to {folder}: {error.strerror}; choose another --out DIR") from None
    return [result for cell in cells if (result := found[cell.key]) is not None]


def _done(cells: Sequence[Cell], jobs: int) -> Iterator[tuple[Cell, Result]]:
    """Cells as they are done. An exception here, such as Ctrl-C, drops what has not begun."""
    if not cells:
        return
    share = round(_SHARE * free_bytes() / max(1, min(jobs, len(cells))))
    limits = [cell.scenario.memory_bytes or share for cell in cells]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(cells)), spawn, _quiet) as pool:
        futures: dict[Future[Result], Cell] = {
            pool.submit(run_cell, Cell(cell.label, replace(cell.scenario, memory_bytes=limit))): cell
            for cell, limit in zip(cells, limits, strict=True)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool:
            raise SetupError(
                "the system has ended a process of the sweep, perhaps for want of memory; the same command "
                "goes on with what is left: use fewer --jobs"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _quiet() -> None:
    """A worker leaves Ctrl-C to the process that waits for it, and shows no warnings of its own."""
    import signal
    import warnings

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")


def run_cell(cell: Cell) -> Result:
    """Simulate one, on one thread unless it says otherwise."""
    from pydec import kernels

    kernels.set_num_threads(cell.scenario.train.threads or 1)
    scenario = replace(
        cell.scenario, train=replace(cell.scenario.train, threads=cell.scenario.train.threads or 1)
    )
    try:
        outcome = Simulation(scenario).run()
    except PydecError as error:
        return Result(cell.label, [], {"error": " ".join(str(error).split())})
    return Result(cell.label, outcome.rows, outcome.summary)


def _read(folder: Path, cell: Cell) -> Result | None:
    try:
        found = json.loads((folder / f"{cell.key}.json").read_text())
        if found["format"] == _FORMAT:
            return Result(cell.label, found["rows"], found["summary"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half-written by something else: it is done again
    return None


def _write(path: Path, result: Result) -> None:
    """All of it or nothing."""
    whole = {"format": _FORMAT, **asdict(result)}
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(whole) + "\n")
    scratch.replace(path)


def table(results: Sequence[Result], path: Path) -> list[dict[str, Any]]:
    """One row per result, written as CSV: what is special about it, then its summary.

    Raises:
        SetupError: the file cannot be written.
    """
    rows = [
        {**result.label, **{k: v for k, v in result.summary.items() if k not in result.label}}
        for result in results
    ]
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another --out DIR") from None
    return rows


def number(text: object) -> float | None:
    """A swept value as a number, if it is one."""
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def default_jobs() -> int:
    """Processes that this machine can run at a time."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
