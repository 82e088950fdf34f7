"""What a run was and what came of it, in words: the rows of the report's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from pydec.report.read import Run
from pydec.trace.merge import NAME

_USUAL = {"local_steps": 1, "mixing": "fixed"}  # not worth a line
_SCORES = {"accuracy": "accuracy", "bits_per_byte": "bits per byte", "loss": "loss"}


def score_words(score: str) -> str:
    """A score's name for people."""
    return _SCORES.get(score, score.replace("_", " "))


def compared(run: Run) -> dict[str, str]:
    """One column of the table that compares runs, by what each line is about; unknown ones are missing."""
    return dict(_compared(run))


def setting(run: Run) -> list[tuple[str, str]]:
    """Where and how a run was started."""
    return [(words, value) for words, value in _setting(run) if value]


def _compared(run: Run) -> Iterator[tuple[str, str]]:
    summary = run.summary
    yield "status", run.status + (f": {summary['reason']}" if summary.get("reason") else "")
    yield "task", str(run.config.get("task", ""))
    for name in ("algorithm", "topology", "compressor", "local_steps", "mixing", "aggregate", "alpha"):
        value = run.option(name)
        if value not in (None, "", 0, 0.0, _USUAL.get(name)):
            yield name.replace("_", " "), str(value)
    yield "ranks", _ranks(run)
    last = max(int(record.columns["step"][-1]) for record in run.ranks.values() if len(record))
    yield "steps", f"{last:,}"
    yield from _scores(run)
    seconds = max(float(record.columns["time_s"][-1]) for record in run.ranks.values() if len(record))
    yield "time", f"{seconds:,.1f} s"
    yield "time of a step, median", f"{1e3 * _median(run):.3g} ms"
    yield "waiting for peers", f"{_waiting(run):.1%} of the time"
    sent = sum(float(record.columns["bytes_sent"][-1]) for record in run.ranks.values() if len(record))
    yield "sent by all ranks", f"{sent / 1e6:,.1f} MB"
    if dense := summary.get("dense_bytes"):
        yield "all-reduce would send", f"{dense / 1e6:,.1f} MB (computed)"
    if distance := summary.get("consensus_distance"):
        yield "consensus distance at the end", f"{distance:.3g}"
    yield from _extras(summary)


def _scores(run: Run) -> Iterator[tuple[str, str]]:
    found: Mapping[str, Any] = run.summary or (run.evaluations[-1] if run.evaluations else {})
    worst = run.summary.get("worst_rank") or {}
    for score in run.scores:
        if found.get(score) is not None:
            yield f"{score_words(score)} of the averaged model", _value(score, found[score])
        if worst.get(score) is not None:
            words = f"{_value(score, worst[score])} (rank {worst['rank']})"
            yield f"{score_words(score)} of the worst rank", words


def _extras(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if privacy := summary.get("privacy"):
        epsilon, delta = privacy.get("epsilon"), privacy.get("delta")
        if epsilon is not None:
            yield "privacy", f"epsilon {epsilon:.3g} at delta {delta:.3g}"
    if secure := summary.get("secure"):
        yield "messages", f"sealed with {', '.join(secure.get('suites', []))}"
    if ledger := summary.get("ledger"):
        yield "ledger", f"height {ledger.get('height')}, epoch {ledger.get('epoch')}"
    if data := summary.get("data"):
        yield "data", f"{data['name']}, root {data['root'][:16]}"
    if byzantine := summary.get("byzantine"):
        yield "liars", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in byzantine.items())


def _setting(run: Run) -> Iterator[tuple[str, str]]:
    yield "command", " ".join(run.config.get("command", []))
    yield "started", str(run.config.get("started", "")).replace("T", " ")
    yield "parameters", f"{run.config.get('parameters', 0):,}"
    yield "seed", str(run.config.get("seed", ""))
    yield "versions", ", ".join(f"{name} {value}" for name, value in run.config.get("versions", {}).items())
    machine = run.config.get("machine", {})
    yield "machine", ", ".join(str(value) for value in machine.values())
    if (run.path / NAME).exists():
        yield "trace", f"{run.path / NAME}: open it at ui.perfetto.dev or chrome://tracing"
    if run.left_out:
        yield "left out", f"{run.left_out} lines of metrics that could not be read"


def _ranks(run: Run) -> str:
    started = run.config.get("ranks", len(run.ranks))
    finished = run.summary.get("ranks_finished")
    return f"{started}" if finished in (None, started) else f"{started}, of which {finished} finished"


def _median(run: Run) -> float:
    return float(np.nanmedian(np.concatenate([record.columns["step_s"] for record in run.ranks.values()])))


def _waiting(run: Run) -> float:
    waited = sum(float(np.nansum(record.columns["wait_s"])) for record in run.ranks.values())
    total = sum(float(np.nansum(record.columns["step_s"])) for record in run.ranks.values())
    return waited / total if total else 0.0


def _value(score: str, value: float) -> str:
    return f"{100 * value:.2f} %" if score == "accuracy" else f"{value:.4f}"
