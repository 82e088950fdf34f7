"""A run directory refuses what it cannot hold, and never shows half a file."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pydec.errors import ConfigError, SetupError
from pydec.train.rundir import Metrics, RunDir


def test_a_new_run_has_its_places(tmp_path):
    directory = RunDir(tmp_path / "a" / "b")
    directory.create(1000)
    directory.write("config.json", {"x": 1, "y": float("nan"), "z": {"w": float("inf")}})
    assert json.loads((tmp_path / "a/b/config.json").read_text()) == {"x": 1, "y": None, "z": {"w": None}}
    assert sorted(path.name for path in (tmp_path / "a/b").iterdir()) == [
        "checkpoints",
        "config.json",
        "metrics",
    ]


def test_an_existing_empty_directory_is_fine(tmp_path):
    RunDir(tmp_path).create(0)


def test_a_directory_with_a_run_is_refused(tmp_path):
    directory = RunDir(tmp_path)
    directory.create(0)
    directory.write("config.json", {})
    with pytest.raises(
        ConfigError, match=r"already holds a run \(config.json\); choose another with --run-dir"
    ):
        RunDir(tmp_path).create(0)


def test_a_file_in_its_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file is a file; choose another"):
        RunDir(tmp_path / "file").create(0)
    with pytest.raises(SetupError, match=r"cannot be written: Not a directory"):
        RunDir(tmp_path / "file" / "below").create(0)


def test_a_directory_that_cannot_be_written_is_refused():
    with pytest.raises(SetupError, match=r"run directory /proc/nowhere cannot be written: .*--run-dir"):
        RunDir(Path("/proc/nowhere")).create(0)


def test_a_full_disk_is_noticed_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=100, f_frsize=4096))
    with pytest.raises(SetupError, match=r"has 0.4 MB left, this run needs about 3.0 MB; free some"):
        RunDir(tmp_path).create(2_000_000)


def test_a_disk_that_fills_up_leaves_the_old_file(tmp_path, monkeypatch):
    directory = RunDir(tmp_path)
    directory.write("summary.json", {"status": "old"})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"the disk is full .*; what was written before is kept"):
        directory.write("summary.json", {"status": "new"})
    assert json.loads((tmp_path / "summary.json").read_text()) == {"status": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_metrics_are_lines_and_reach_the_disk_when_closed(tmp_path):
    directory = RunDir(tmp_path)
    directory.create(0)
    with directory.metrics(3) as metrics:
        metrics.add({"step": 1, "loss": 0.5})
        metrics.add({"step": 2, "loss": float("nan")})
    lines = (tmp_path / "metrics" / "rank-3.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_metrics_on_a_full_disk_say_so():
    metrics = Metrics(Path("/dev/full"), RunDir(Path("runs/x"))._failure)
    metrics.add({"step": 1})
    with pytest.raises(SetupError, match=r"run directory runs/x: the disk is full"):
        metrics.close()
    metrics.close()
