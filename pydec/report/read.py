"""A run directory as arrays: the record of every rank, what was written before and after.

Also of a run that goes on: lines that are not whole yet are left out, and there is no summary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError

NEWEST = 1  # of config.json
_COLUMNS = ("step", "time_s", "loss", "step_s", "wait_s", "bytes_sent", "consensus_distance")
_SENT = b"sent_to_"
_OF_EVALUATIONS = {"kind", "step", "time_s", "consensus_distance", "bytes_sent", "bytes_received"}


class _Row(msgspec.Struct):
    """What is read of one line of metrics; null where a number was not finite."""

    kind: str
    step: int
    time_s: float = 0.0
    loss: float | None = None
    step_s: float | None = None
    wait_s: float | None = None
    bytes_sent: int = 0
    consensus_distance: float | None = None


@dataclass(frozen=True)
class Record:
    """What one rank has recorded.

    Attributes:
        columns: by name, float64 of shape (steps,): ``step``, ``time_s``, ``loss``, ``step_s``, ``wait_s``,
            ``bytes_sent`` and ``consensus_distance``, NaN where a row has none.
        sent_to: bytes by the rank that they went to, as recorded last.
    """

    columns: Mapping[str, NDArray[np.float64]]
    sent_to: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.columns["step"])


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
        path: the directory.
        name: what charts call it.
        config: of ``config.json``.
        summary: of ``summary.json``; empty while the run goes on, or after it was killed.
        ranks: the record of each, by rank, at least one.
        evaluations: in the order of their steps.
        left_out: lines that could not be read.
        scores: what evaluations measured, such as loss and accuracy.
    """

    path: Path
    name: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    ranks: Mapping[int, Record]
    evaluations: tuple[Mapping[str, float], ...] = ()
    left_out: int = 0
    scores: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """In one word; "running" where nothing says how it ended."""
        return str(self.summary.get("status", "running"))

    def option(self, name: str) -> Any:
        """An option of the run, None if it is not known."""
        return self.config.get("options", {}).get(name)


def read(path: Path, name: str = "") -> Run:
    """Read one run directory.

    Args:
        path: of the run.
        name: what charts call it; that of the directory if empty.

    Raises:
        ConfigError: it is none, is of a newer version, or nothing is recorded yet.
    """
    config = _json(path / "config.json", f"{path} is no run directory: it has no config.json")
    if config.get("pydec", NEWEST) > NEWEST:
        raise ConfigError(
            f"{path} was written by a newer pydec (format {config['pydec']}, this one knows {NEWEST}); "
            "install that one"
        )
    summary = {}
    if (path / "summary.json").exists():
        summary = _json(path / "summary.json", "")
    ranks: dict[int, Record] = {}
    evaluations: dict[int, dict[str, float]] = {}
    left_out = 0
    for file in sorted((path / "metrics").glob("rank-*.jsonl")):
        rank = int(file.stem.removeprefix("rank-"))
        ranks[rank], found, bad = _record(file)
        evaluations |= found
        left_out += bad
    if not any(map(len, ranks.values())):
        raise ConfigError(f"{path} has no step on record yet; try again when the run has taken some")
    ordered = tuple(evaluations[step] for step in sorted(evaluations))
    scores = tuple(key for key in (ordered[-1] if ordered else {}) if key not in _OF_EVALUATIONS)
    return Run(path, name or path.resolve().name, config, summary, ranks, ordered, left_out, scores)


def _record(file: Path) -> tuple[Record, dict[int, dict[str, float]], int]:
    """The record in one file, its evaluations by step, and how many lines are none."""
    decoder = msgspec.json.Decoder(_Row)
    steps: list[_Row] = []
    evaluations: dict[int, dict[str, float]] = {}
    sent_to: dict[int, int] = {}
    bad = 0
    lines = file.read_bytes().split(b"\n")
    for line in lines[:-1]:  # what follows the last newline is still being written
        try:
            row = decoder.decode(line)
            if row.kind == "step":
                steps.append(row)
                if _SENT in line:
                    sent_to = _links(msgspec.json.decode(line))
            elif row.kind == "evaluation":
                evaluations[row.step] = {
                    key: value
                    for key, value in msgspec.json.decode(line).items()
                    if isinstance(value, int | float)
                }
        except msgspec.DecodeError:
            bad += 1
    columns = {
        name: np.array([_number(getattr(row, name)) for row in steps], dtype=np.float64) for name in _COLUMNS
    }
    return Record(columns, sent_to), evaluations, bad


def _links(row: Mapping[str, Any]) -> dict[int, int]:
    """Bytes by the rank that they went to."""
    prefix = _SENT.decode()
    return {int(key.removeprefix(prefix)): count for key, count in row.items() if key.startswith(prefix)}


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _json(path: Path, missing: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(missing) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds no JSON object but {type(found).__name__}")
    return found
