"""Curves, bins and events of a run, thinned to what a chart can show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydec.report.read import Record, Run

Array = NDArray[np.float64]
POINTS = 250  # of a curve: more than a small chart has pixels for
AXES = {"step": "step", "time_s": "seconds", "bytes": "MB sent by all ranks"}
"""What curves are drawn against, and the words for it."""


@dataclass(frozen=True)
class Curve:
    """One quantity of one run.

    Attributes:
        x: by name of ``AXES``, shape (points,).
        y: the values, shape (points,), none of them NaN.
    """

    x: dict[str, Array]
    y: Array


@dataclass(frozen=True)
class Event:
    """Something that happened at a moment of a run."""

    time_s: float
    step: int
    kind: str
    words: str


def training(run: Run, column: str) -> Curve:
    """A column of the records: its mean over ranks and over the steps of each of ``POINTS`` pieces."""
    steps = np.concatenate([record.columns["step"] for record in run.ranks.values()])
    values = np.concatenate([record.columns[column] for record in run.ranks.values()])
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if not len(steps):
        return _curve(run, np.empty(0), np.empty(0))
    first, last = steps.min(), steps.max()
    pieces = int(min(POINTS, last - first + 1))
    edges = np.linspace(first, last + 1, pieces + 1)
    place = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, pieces - 1)
    counts = np.bincount(place, minlength=pieces)
    sums = np.bincount(place, weights=values, minlength=pieces)
    middle = np.bincount(place, weights=steps, minlength=pieces)
    some = counts > 0
    return _curve(run, middle[some] / counts[some], sums[some] / counts[some])


def evaluated(run: Run, score: str) -> Curve:
    """A score of the averaged model, at every evaluation."""
    rows = [row for row in run.evaluations if score in row and np.isfinite(row[score])]
    return _curve(run, np.array([row["step"] for row in rows], float), np.array([row[score] for row in rows]))


def moment(run: Run, step: float) -> float:
    """Seconds since the first step at which a step was done, by the record that reaches furthest."""
    record = max((each for each in run.ranks.values() if len(each)), key=lambda r: r.columns["step"][-1])
    return float(np.interp(step, record.columns["step"], record.columns["time_s"]))


def timeline(run: Run, column: Callable[[Record], Array], bins: int = 200) -> tuple[Array, float]:
    """A column of the records in time: its mean in each bin, by rank.

    Args:
        run: whose records.
        column: gives the values of one record, shape (steps,).
        bins: of equal length, from 0 to the end.

    Returns:
        Shape (ranks, bins), NaN where a rank has recorded nothing, and the seconds at the end.
    """
    end_s = max(float(record.columns["time_s"].max()) for record in run.ranks.values() if len(record))
    found = np.full((len(run.ranks), bins), np.nan)
    for row, rank in enumerate(sorted(run.ranks)):
        record = run.ranks[rank]
        if not len(record):
            continue
        ends = record.columns["time_s"] / max(end_s, 1e-9) * bins
        begins = ends - np.nan_to_num(record.columns["step_s"]) / max(end_s, 1e-9) * bins
        sums, weights = np.zeros(bins), np.zeros(bins)
        for begin, end, value in zip(begins, ends, column(record), strict=True):
            low, high = max(0, int(begin)), min(bins - 1, int(end))
            for place in range(low, high + 1):  # a step counts in a bin by the part of it that lies there
                part = min(end, place + 1) - max(begin, place)
                if part > 0 and np.isfinite(value):
                    sums[place] += part * value
                    weights[place] += part
        some = weights > 0
        found[row, some] = sums[some] / weights[some]
    return found, end_s


def links(run: Run) -> Array:
    """Bytes that went from each rank (row) to each (column); empty where nothing is on record."""
    size = max(run.config.get("ranks", 0), 1 + max(run.ranks))
    found = np.zeros((size, size))
    for rank, record in run.ranks.items():
        for other, count in record.sent_to.items():
            if other < size:
                found[rank, other] = count
    return found if found.any() else np.empty((0, 0))


def events(run: Run) -> list[Event]:
    """What happened, in the order of time: losses, epochs, evictions, checkpoints, a new start."""
    return sorted(_events(run), key=lambda event: (event.time_s, event.step))


def _events(run: Run) -> Iterator[Event]:
    for loss in run.summary.get("lost", []):
        yield Event(loss["time_s"], loss["step"], "lost", f"rank {loss['rank']} lost: {loss['reason']}")
    ledger = run.summary.get("ledger") or {}
    every = run.option("local_steps") or 1
    for epoch in ledger.get("epochs", []):
        step = epoch["start_round"] * every
        words = f"epoch {epoch['epoch']} of the ledger: {len(epoch['members'])} members"
        yield Event(moment(run, step), step, "epoch", words)
    for gone in ledger.get("evicted", []):
        step = gone["round"] * every
        yield Event(moment(run, step), step, "evicted", f"rank {gone['rank']} evicted by the ledger")
    certified = {*ledger.get("checkpoints", [])}
    for folder in (run.path / "checkpoints").glob("step-*"):
        digits = folder.name.removeprefix("step-")
        if folder.is_dir() and digits.isdecimal():
            step = int(digits)
            words = "certified checkpoint" if step in certified else "checkpoint"
            yield Event(moment(run, step), step, "checkpoint", words)
    if resumed := run.config.get("resumed"):
        yield Event(moment(run, resumed), resumed, "resumed", "went on from a checkpoint")


def _curve(run: Run, steps: Array, values: Array) -> Curve:
    sent = np.zeros(len(steps))
    for record in run.ranks.values():
        if len(record) and len(steps):
            sent += np.interp(steps, record.columns["step"], record.columns["bytes_sent"])
    times = np.array([moment(run, step) for step in steps])
    return Curve({"step": steps, "time_s": times, "bytes": sent / 1e6}, values)
