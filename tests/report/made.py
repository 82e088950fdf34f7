"""Run directories as training writes them, made by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path


def made(
    path: Path,
    *,
    ranks: int = 4,
    steps: int = 40,
    dies: int | None = None,
    done: bool = True,
    options: dict[str, object] | None = None,
) -> Path:
    """A run of ``steps`` steps of 0.1 s; rank ``dies`` ends after half of them."""
    (path / "metrics").mkdir(parents=True)
    (path / "checkpoints" / f"step-{steps}").mkdir(parents=True)
    config = {
        "pydec": 1, "task": "toy:blobs", "command": ["pydec", "train", "toy:blobs"], "ranks": ranks,
        "seed": 3,
        "options": {"algorithm": "dpsgd", "topology": "ring", "compressor": "int8", **(options or {})},
        "parameters": 1000, "versions": {"pydec": "0.1.0"}, "machine": {"system": "Linux"},
        "started": "2026-01-02T03:04:05+00:00", "resumed": 0,
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(config))
    for rank in range(ranks):
        mine = steps // 2 if rank == dies else steps
        lines = []
        for step in range(1, mine + 1):
            row = {
                "kind": "step", "step": step, "time_s": 0.1 * step, "lr": 0.1,
                "loss": math.exp(-step / steps) + 0.01 * rank, "bytes_sent": 1000 * step,
                "bytes_received": 1000 * step, "step_s": 0.1,
                "wait_s": 0.025 * rank / ranks, "consensus_distance": 1.0 / step,
            }  # fmt: skip
            if step == mine:
                row |= {
                    f"sent_to_{(rank + 1) % ranks}": 600 * step,
                    f"sent_to_{(rank - 1) % ranks}": 400 * step,
                }
            lines.append(json.dumps(row))
            if rank == 0 and step % (steps // 2) == 0:
                score = {"loss": 0.5, "accuracy": step / steps, "consensus_distance": 0.1}
                lines.append(json.dumps({"kind": "evaluation", "step": step, "time_s": 0.1 * step, **score}))
        (path / "metrics" / f"rank-{rank}.jsonl").write_text("\n".join(lines) + "\n")
    if done:
        living = [rank for rank in range(ranks) if rank != dies]
        epochs = [{"epoch": 1, "members": list(range(ranks)), "start_round": 0, "seed": 3}]
        lost, evicted = [], []
        if dies is not None:
            lost = [
                {"rank": dies, "step": steps // 2, "time_s": 0.05 * steps, "reason": "killed <by> a test"}
            ]
            evicted = [{"rank": dies, "epoch": 2, "round": steps // 2 + 2}]
            epochs.append({"epoch": 2, "members": living, "start_round": steps // 2 + 2, "seed": 4})
        summary = {
            "status": "done", "steps": steps, "loss": 0.5, "accuracy": 1.0, "bytes_sent": 4000 * steps,
            "worst_rank": {"rank": 1, "loss": 0.6, "accuracy": 0.9}, "ranks_finished": len(living),
            "lost": lost, "dense_bytes": 10**7, "consensus_distance": 0.1, "wait_s": 1.0,
            "ledger": {"height": 3, "epoch": len(epochs), "epochs": epochs, "evicted": evicted,
                       "checkpoints": [steps]},
        }  # fmt: skip
        (path / "summary.json").write_text(json.dumps(summary))
    return path
