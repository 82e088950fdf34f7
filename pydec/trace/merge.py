"""One Chrome trace of what the ranks have written; also of ranks that were killed, or still run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from pydec.errors import ConfigError, SetupError

FOLDER = "trace"
NAME = "trace.json"


def part(directory: Path, rank: int) -> Path:
    """Where a rank writes."""
    return directory / FOLDER / f"rank-{rank}.jsonl"


def origin_ns(directory: Path) -> int:
    """What to add to this rank's ``time.perf_counter_ns()`` so that the trace begins at 0; asked on rank 0.

    A run that goes on has the origin of its first start, by this host's clock. Where that cannot be kept,
    this start is the origin.
    """
    file = directory / FOLDER / "began"
    now_ns, mine_ns = time.time_ns(), time.perf_counter_ns()
    began_ns = now_ns
    with suppress(OSError, ValueError):
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(str(now_ns))
        began_ns = int(file.read_text())
    return now_ns - began_ns - mine_ns


def merge(directory: Path) -> Path:
    """Write ``trace.json`` from the ranks' files in ``trace``, whole or not at all; its path.

    A line that a rank has not written to its end is left out.

    Args:
        directory: where both are: of the run, or what ``pydec.init(trace=...)`` was given.

    Raises:
        ConfigError: no rank has written there.
        SetupError: it cannot be written.

    Cost: reads and writes the files once, a line at a time.
    """
    parts = sorted((directory / FOLDER).glob("rank-*.jsonl"))
    if not parts:
        raise ConfigError(
            f"{directory} holds no trace: there is no {FOLDER}/rank-*.jsonl in it; pydec train --trace, or "
            "pydec.init(trace=DIR), writes them"
        )
    target = directory / NAME
    temporary = target.with_name(f".{NAME}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(b'{"displayTimeUnit":"ms","traceEvents":[')
            before = b"\n"
            for path in parts:
                for event in _whole(path):
                    file.write(before + event)
                    before = b",\n"
            file.write(b"\n]}\n")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SetupError(
            f"{target} cannot be written: {error.strerror or error}; the parts are in {directory / FOLDER}: "
            f"python -m pydec.trace DIR puts them together once they are in DIR/{FOLDER}"
        ) from error
    return target


def renewed(directory: Path) -> Path | None:
    """The merged trace of a run, made anew if a rank has written since; None if nothing is recorded.

    Raises:
        SetupError: it cannot be written.
    """
    parts = list((directory / FOLDER).glob("rank-*.jsonl"))
    if not parts:
        return None
    target = directory / NAME
    if target.exists() and target.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in parts):
        return target
    return merge(directory)


def _whole(path: Path) -> Iterator[bytes]:
    """The lines of a file that are JSON objects."""
    with open(path, "rb") as file:
        for line in file:
            event = line.strip()
            if event.startswith(b"{"):
                try:
                    msgspec.json.decode(event, type=msgspec.Raw)
                except msgspec.DecodeError:
                    continue  # cut, with the process that wrote it
                yield event
