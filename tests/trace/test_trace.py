"""Spans of one process: off by default, whole on disk, bounded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from pydec import trace
from pydec.errors import SetupError
from pydec.trace import Recorder, ended, span, traced
from pydec.trace.merge import merge, part


def events(directory):
    return [event for event in json.loads(merge(directory).read_text())["traceEvents"] if event["ph"] == "X"]


@traced("twice")
def twice(x: int) -> int:
    return 2 * x


def test_nothing_happens_where_nobody_records():
    with span("encode", peer=1) as nothing:
        assert nothing is None
    ended("ledger", 0)
    assert twice(4) == 8
    assert trace._recorder is None


def test_spans_are_where_the_work_is(tmp_path):
    with Recorder(part(tmp_path, 3), 3, shift_ns=5, facts={"clock within us": 7}) as recorder:
        with span("outer"), span("inner", peer=2):
            pass
        thread = threading.Thread(target=twice, args=(1,), name="writer")
        thread.start()
        thread.join()
        with pytest.raises(RuntimeError, match="already"):
            Recorder(part(tmp_path, 4), 4)
    recorder.close()
    twice(1)  # after the end
    inner, outer, other = events(tmp_path)
    assert (inner["name"], outer["name"], other["name"]) == ("inner", "outer", "twice")
    assert inner["args"] == {"peer": 2}
    assert "args" not in outer
    assert outer["ts"] <= inner["ts"]
    assert inner["ts"] + inner["dur"] <= outer["ts"] + outer["dur"] + 1e-2
    assert {event["pid"] for event in (inner, outer, other)} == {3}
    assert inner["tid"] == outer["tid"] != other["tid"]
    every = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = {event["args"]["name"] for event in every if event["name"] == "thread_name"}
    assert names == {"MainThread", "writer"}


def test_what_lies_between_two_steps_has_a_name(tmp_path):
    with Recorder(part(tmp_path, 0), 0, between="compute"):
        for _ in range(3):
            with span("step"):
                pass
    assert [event["name"] for event in events(tmp_path)] == ["step", "compute", "step", "compute", "step"]


def test_an_error_ends_its_span_and_goes_on(tmp_path):
    with Recorder(part(tmp_path, 0), 0), pytest.raises(ValueError, match="mine"), span("wait"):
        raise ValueError("mine")
    assert [event["name"] for event in events(tmp_path)] == ["wait"]


def test_the_trace_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "MOST_EVENTS", 10)
    with Recorder(part(tmp_path, 0), 0):
        for _ in range(25):
            twice(1)
    found = events(tmp_path)
    assert len(found) == 10
    assert found[-1]["name"] == "the trace is full"


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "_FLUSH_EVENTS", 8)
    with Recorder(part(tmp_path, 0), 0) as recorder:
        for _ in range(100):
            twice(1)
            assert len(recorder._events) < 8


def test_a_killed_process_leaves_what_it_had(tmp_path):
    code = f"""
import os, signal
from pathlib import Path
from pydec.trace import Recorder, span
recorder = Recorder(Path({str(part(tmp_path, 0))!r}), 0)
with recorder:
    for _ in range(3):
        with span("encode"):
            pass
    recorder.flush()
    os.write(recorder._file.fileno(), b'{{"ph":"X","name":"cut')
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [event["name"] for event in events(tmp_path)] == ["encode"] * 3
    with Recorder(part(tmp_path, 0), 0):  # the run goes on
        twice(1)
    assert [event["name"] for event in events(tmp_path)] == ["encode"] * 3 + ["twice"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_records_nothing(tmp_path):
    with Recorder(part(tmp_path, 0), 0):
        if (child := os.fork()) == 0:
            twice(1)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert events(tmp_path) == []


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path, capsys):
    with open("/dev/full", "wb"):
        recorder = Recorder(part(tmp_path, 0), 0)
    full = open("/dev/full", "ab", buffering=0)  # noqa: SIM115  # closed by the recorder
    recorder._file.close()
    recorder._file = full
    with recorder:
        twice(1)
        recorder.flush()
        twice(1)
    assert capsys.readouterr().err.count("the trace") == 1


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "trace").write_text("a file")
    with pytest.raises(SetupError, match="choose another directory"):
        Recorder(part(tmp_path, 0), 0)
