"""A tiny task, found the way a user's is, and clusters that train it."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydec.train.checkpoint import Saver

TOY = """
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import TensorDataset
    from pydec.train import Defaults, Task

    def blobs(bad: bool = False, frozen: bool = False, vector: bool = False) -> Task:
        random = torch.Generator().manual_seed(1)
        y = torch.arange(240) % 3
        x = torch.randn(240, 4, generator=random) + 2.0 * torch.eye(3, 4)[y]
        if bad:
            x[:] = float("nan")
        model = torch.nn.Linear(4, 3)
        model.requires_grad_(not frozen)
        return Task(
            model=model,
            train=TensorDataset(x[:200], y[:200]),
            loss=(lambda a, b: cross_entropy(a, b, reduction="none")) if vector else cross_entropy,
            validation=TensorDataset(x[200:], y[200:]),
            metric=lambda a, b: (a.argmax(1) == b).float().mean(),
            defaults=Defaults(batch_size=8, lr=0.1, optimizer="sgd", epochs=1),
        )

    def mixed(width: int = 8, dropout: float = 0.0) -> Task:
        task = blobs()
        task.model = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU(),
            torch.nn.Dropout(dropout), torch.nn.Linear(width, 3),
        )
        return task
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module with the task ``blobs``; the current directory is new, its disk never busy."""
    (tmp_path / "pydec_toy.py").write_text(textwrap.dedent(TOY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pydec_toy", raising=False)
    begin = Saver._begin

    def begin_later(self: Saver, step: int) -> None:
        self.wait()  # else a slow machine leaves checkpoints out
        begin(self, step)

    monkeypatch.setattr(Saver, "_begin", begin_later)
    return "pydec_toy"


@pytest.fixture
def records() -> Callable[[Path, int], list[dict[str, Any]]]:
    """Reads the metrics of one rank."""

    def read(run_dir: Path, rank: int) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (run_dir / "metrics" / f"rank-{rank}.jsonl").read_text().splitlines()
        ]

    return read
