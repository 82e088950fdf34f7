"""A Chrome trace of a real MPI job: every kind of span, on one clock, whoever dies."""

from __future__ import annotations

import json

import pytest

from .test_train import program

SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
import pydec

folder = Path(sys.argv[1])
with pydec.init(trace=folder) as peer:
    torch.manual_seed(peer.rank)
    model = torch.nn.Linear(4, 3)
    opt = pydec.DecentralizedOptimizer(torch.optim.SGD(model.parameters(), lr=0.1), peer, iid=True)
    for step in range(8):
        model(torch.randn(8, 4)).square().mean().backward()
        opt.step()
        opt.zero_grad()
        if peer.rank == 2 and step == 4:
            peer._recorder.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    opt.close()
"""


def spans(trace):
    found = json.loads(trace.read_text())["traceEvents"]
    return [event for event in found if event["ph"] == "X"]


def check_nesting(found):
    """Spans of one thread lie beside or within one another."""
    open_until = {}
    for event in sorted(found, key=lambda event: (event["ts"], -event["dur"])):
        inside = open_until.setdefault((event["pid"], event["tid"]), [])
        end = event["ts"] + event["dur"]
        while inside and inside[-1] <= event["ts"] + 0.002:
            inside.pop()
        assert not inside or end <= inside[-1] + 0.002, event
        inside.append(end)


@pytest.mark.timeout(120)
def test_training_records_every_kind(mpirun, tmp_path):
    words = ["--steps", "12", "--trace", "--run-dir", "run", "--checkpoint-every", "6", "--quiet"]
    done = mpirun(program("__main__:blobs", *words), 3, timeout_s=110.0)
    assert done.returncode == 0, done.stderr
    found = spans(tmp_path / "run" / "trace.json")
    check_nesting(found)
    kinds = {"compute", "step", "encode", "send", "decode+mix", "update", "report", "evaluate"}
    for rank in range(3):
        mine = [event for event in found if event["pid"] == rank]
        assert kinds | {"checkpoint", "write checkpoint"} <= {event["name"] for event in mine}
        assert sum(event["name"] == "compute" for event in mine) == 12
        lines = (tmp_path / f"run/metrics/rank-{rank}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        waited_s = sum(row["wait_s"] for row in rows if row["kind"] == "step")
        shown_s = sum(
            event["dur"] / 1e6
            for event in mine
            if event["name"] == "wait" and any(inside(event, step) for step in mine if step["name"] == "step")
        )
        assert shown_s <= waited_s + 1e-4  # the same waits, measured just within
    starts = [min(event["ts"] for event in found if event["pid"] == rank) for rank in range(3)]
    ends = [max(event["ts"] + event["dur"] for event in found if event["pid"] == rank) for rank in range(3)]
    assert max(starts) < min(ends)  # one clock: they train together


def inside(event, other):
    return (
        event["tid"] == other["tid"]
        and other["ts"] <= event["ts"] <= event["ts"] + event["dur"] <= other["ts"] + other["dur"] + 0.002
    )


@pytest.mark.timeout(120)
def test_a_script_records_and_a_dead_rank_leaves_what_it_had(mpirun, tmp_path):
    done = mpirun(SCRIPT, 4, flags=["--with-ft", "ulfm"], timeout_s=110.0)
    assert (tmp_path / "trace.json").exists(), done.stderr
    found = spans(tmp_path / "trace.json")
    check_nesting(found)
    steps = [sum(event["name"] == "step" and event["pid"] == rank for event in found) for rank in range(4)]
    assert steps == [8, 8, 5, 8]
    assert sum(event["name"] == "compute" and event["pid"] == 0 for event in found) == 7
