"""The suite of what a user waits for."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import suite_experience
from benchmarks.harness import Options
from pydec.errors import SetupError


@pytest.mark.parametrize("fails", [None, "make"])
def test_a_clone_is_installed_and_trains_a_step(monkeypatch, fails):
    started = []

    def run(words, **_):
        started.append(words)
        return subprocess.CompletedProcess(words, int(words[0] == fails))

    monkeypatch.setattr(suite_experience.subprocess, "run", run)
    if fails:
        with pytest.raises(SetupError, match=r"make -C .* install ended with status 1"):
            list(suite_experience.rows(Options(only="clone")))
        return
    (row,) = suite_experience.rows(Options(only="clone"))
    assert [words[0].rpartition("/")[2] for words in started] == ["git", "make", "pydec"]
    assert (row.peer, row.peer_value, row.unit) == ("target", 240.0, "s")


def test_there_must_be_a_repository(monkeypatch, tmp_path):
    monkeypatch.setattr(suite_experience, "ROOT", tmp_path)
    with pytest.raises(SetupError, match="is no clone"):
        list(suite_experience.rows(Options(only="clone")))
    assert list(suite_experience.rows(Options(only="else"))) == []
