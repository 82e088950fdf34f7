"""Who can race here, and what is said of those who cannot."""

from __future__ import annotations

import importlib.util

import pytest

from pydec.cli import bench

racers, races = bench.load("netlab.racers"), bench.load("netlab.races")


def test_every_contender_is_known_and_ddp_always_races():
    methods = {method for contest in races.CONTESTS for method, _ in contest.contenders.values()}
    assert methods - {"pydec"} == set(racers.PEERS)
    assert racers.unavailable("ddp") is None


@pytest.mark.parametrize(("method", "module"), [("hivemind", "hivemind"), ("decent-dp", "decent_dp")])
def test_a_missing_library_leaves_its_racer_out_with_the_reason(monkeypatch, capsys, method, module):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else object())
    reason = racers.unavailable(method)
    assert reason.startswith(f"{method} is not installed: pip install {method}")

    contest = races.Contest("a race", races.Race(""), {"peer": (method, {})}, target=0.9)
    options = bench.load("harness").Options(quick=True)
    assert list(races._raced(None, contest, options)) == []
    assert capsys.readouterr().err == f"a race: peer left out: {reason}\n"


def test_hivemind_gives_the_mean_where_it_is_installed(mpirun):
    pytest.importorskip("hivemind")
    done = mpirun(PROGRAM, ranks=2, timeout_s=120.0)
    assert done.returncode == 0, done.stderr


PROGRAM = """
import torch
from pydec.cli import bench
racers = bench.load("netlab.racers")
rank, size = racers.start_gloo()
torch.manual_seed(rank)
model = torch.nn.Linear(50, 20)
racer = racers.PEERS["hivemind"](model, lambda m: torch.optim.SGD(m.parameters(), lr=0.1), period=2)
for _ in range(4):
    model(torch.randn(8, 50)).square().mean().backward()
    racer.step()
with racer.averaged():
    mean = model.weight.detach().clone()
assert (mean - model.weight).abs().max() < 0.01
racer.close()
"""
