"""Liars under mpirun: a robust run learns, and says what it left out."""

from __future__ import annotations

import json

import pytest

TRAIN = """
import os, sys
os.chdir(sys.argv[1])
from pydec.cli.main import main
sys.exit(main(["train", *{words!r}]))
"""

CLOUDS = """
import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset
from pydec.train import Defaults, Task

def clouds():
    draw = np.random.default_rng(0)
    centres = 2.5 * draw.standard_normal((3, 8))
    labels = draw.integers(3, size=1200)
    points = torch.from_numpy(draw.standard_normal((1200, 8)) + centres[labels]).float()
    y = torch.from_numpy(labels)
    return Task(
        model=torch.nn.Linear(8, 3), train=TensorDataset(points[:1000], y[:1000]), loss=cross_entropy,
        validation=TensorDataset(points[1000:], y[1000:]),
        metric=lambda a, b: (a.argmax(1) == b).float().mean(),
        defaults=Defaults(batch_size=16, lr=0.05, optimizer="sgd"),
    )
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("attack", "rule"), [("alie", "cs-plus"), ("nan", "cs-plus"), ("sparse-alie", "ubar")]
)
def test_liars_under_mpirun_do_not_keep_the_others_from_learning(mpirun, tmp_path, attack, rule):
    (tmp_path / "clouds.py").write_text(CLOUDS)
    words = [
        "clouds:clouds",
        "--steps",
        "30",
        "--topology",
        "complete",
        "--aggregate",
        rule,
        "--run-dir",
        "run",
    ]
    words += ["--byzantine", "1,3", "--attack", attack, "--deadline", "300", "--quiet"]
    done = mpirun(TRAIN.format(words=words), 6, timeout_s=500)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["accuracy"] > 0.9
    assert summary["worst_rank"]["rank"] not in (1, 3)
    found = summary["byzantine"]
    assert (found["ranks"], found["attack"]) == ([1, 3], attack)
    assert (found["left_out"]["malformed"] > 0) == (attack == "nan")  # int8 has no code for NaN
