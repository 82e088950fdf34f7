"""What a run came to: the content of ``summary.json`` and the last words on the terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydec.comm.living import agree_who_lives, living
from pydec.peer import Peer
from pydec.train.config import TrainConfig
from pydec.train.private import words_of
from pydec.train.progress import Progress
from pydec.train.rundir import RunDir
from pydec.train.task import Task

_FLOAT32_BYTES = 4
_BEHIND = 0.05  # share of right answers, or of the loss, by which the worst rank's model may be worse


def summary(
    config: TrainConfig, task: Task, size: int, progress: Progress, *, status: str, wall_s: float
) -> dict[str, Any]:
    """The entries that every run has, finished or not.

    Args:
        config: resolved.
        task: its number of samples counts epochs.
        size: ranks that started.
        progress: how far the run came.
        status: "done", "stopped" or "failed".
        wall_s: seconds from the first step on.
    """
    share_steps = max(1, task.samples // size // config.batch_size)
    return {
        "status": status,
        "steps": progress.step,
        "epochs": progress.step / share_steps,
        "wall_s": wall_s,
        "train_loss": progress.loss,
        "consensus_distance": progress.consensus_distance,
        "bytes_sent": progress.bytes_sent,
        "ranks_started": size,
        "ranks_finished": 0,
    }


def comparison(size: int, steps: int, parameters: int) -> int:
    """Bytes that a float32 ring all-reduce of the gradients sends in as many steps, over all ranks.

    2 (size - 1) / size model sizes per rank and step, as in Patarasuk, Yuan 2009.
    """
    return 2 * (size - 1) * steps * parameters * _FLOAT32_BYTES


def written(peer: Peer, directory: RunDir, result: dict[str, Any]) -> dict[str, Any]:
    """Have the rank that speaks write the summary, or the next one if that dies; empty on all others."""
    while True:
        speaker = living(peer.transport).first
        peer.check()  # who hung may believe that it speaks
        if peer.rank == speaker:
            directory.write("summary.json", result)
        if speaker in agree_who_lives(peer.transport):
            return result if peer.rank == speaker else {}


def failed_reason(path: Path) -> str:
    """Why the run in ``path`` failed, if a rank wrote that down already, or ""."""
    try:
        found = json.loads((path / "summary.json").read_text())
    except (OSError, ValueError):
        return ""
    return str(found.get("reason", "")) if isinstance(found, dict) and found.get("status") == "failed" else ""


def closing_words(path: Path, result: Mapping[str, Any]) -> str:
    """The last lines of a finished run, labels aligned."""
    lines = [("run directory", str(path))]
    if "loss" in result:
        lines.append(("averaged model", score_words(result)))
    if result.get("worst_rank"):
        last = result["worst_rank"]
        lines.append(("worst rank", f"{score_words(last)} (rank {last['rank']})"))
    if "growth_since" in (result.get("byzantine") or {}):
        lines += apart_words(result)
    if result.get("privacy"):
        lines.append(("privacy", words_of(result["privacy"])))
    solo = result.get("solo")
    if solo:
        words = score_words(solo) if "loss" in solo else f"training loss {solo['train_loss']:.4f}"
        lines.append(("one peer alone", f"{words}, same {result['steps']} steps, {solo['wall_s']:.1f} s"))
        better = _difference(result, solo)
        if better:
            lines.append(("", better))
    sent, dense = result["bytes_sent"], result.get("dense_bytes", 0)
    if sent:
        words = f"{sent / 1e6:.1f} MB by {result['ranks_started']} ranks"
        lines.append(("sent", f"{words}; all-reduce would send {dense / 1e6:.1f} MB (computed)"))
    saved = result.get("checkpoints")
    if saved and saved["stored_bytes"]:
        words = f"{saved['bytes'] / 1e6:.1f} MB in {saved['stored_bytes'] / 1e6:.1f} MB of the store"
        lines.append(("checkpoints", f"{words}, {saved['deduplication']:.2f} times deduplicated"))
    wait = result.get("wait_s")
    waited = f", at most {wait:.1f} s of it waiting for peers" if wait is not None and sent else ""
    lines.append(("time", f"{result['wall_s']:.1f} s for {result['steps']} steps{waited}"))
    return "\n".join(f"{label:<15} {words}" for label, words in lines)


def score_words(score: Mapping[str, Any]) -> str:
    """A score in one phrase."""
    parts = [f"loss {score['loss']:.4f}"]
    for key, value in score.items():
        if key == "bits_per_byte":
            parts.append(f"{value:.3f} bits/byte")
        elif key == "accuracy":
            parts.append(f"{100 * value:.2f} % right")
    return ", ".join(parts)


def apart_words(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a robust rule did to consensus, in numbers; and what to do if a rank's own model lags behind."""
    found = result["byzantine"]
    parts = [f"models {result['consensus_distance']:.3g} apart"]
    if found.get("left_out_weight") is not None:
        parts.insert(0, f"{100 * found['left_out_weight']:.0f} % of the neighbours' weight left out")
    if found.get("distance_growth") is not None:
        parts.append(f"{found['distance_growth']:.2g} times as far as at step {found['growth_since']}")
    lines = [("consensus", ", ".join(parts))]
    last = result.get("worst_rank") or {}
    if "accuracy" in last:
        behind = last["accuracy"] < result["accuracy"] - _BEHIND
    else:
        behind = "loss" in last and last["loss"] > (1 + _BEHIND) * result["loss"]
    if behind:
        words = (
            f"rank {last['rank']} has {score_words(last)}, the averaged model {score_words(result)}: honest "
            "ranks are kept apart, by liars or because their data differ; lower f, take a denser graph, or "
            "put nnm+ before the rule, and compare with a run of --algorithm dpsgd"
        )
        lines.append(("warning", words))
    return lines


def _difference(result: Mapping[str, Any], solo: Mapping[str, Any]) -> str:
    """How the averaged model of all ranks compares with one peer's."""
    ranks = result["ranks_started"]
    if "bits_per_byte" in result and "bits_per_byte" in solo:
        gap, unit = solo["bits_per_byte"] - result["bits_per_byte"], "bits/byte"
    elif "accuracy" in result and "accuracy" in solo:
        gap, unit = 100 * (result["accuracy"] - solo["accuracy"]), "points"
    elif "loss" in result and "loss" in solo:
        gap, unit = solo["loss"] - result["loss"], "of loss"
    else:
        return ""
    if not math.isfinite(gap):
        return ""
    return f"{ranks} ranks together are {abs(gap):.3f} {unit} {'better' if gap >= 0 else 'worse'}"
