"""pydec scale from the outside, where it is refused; what it does is in tests/launch and tests/mpi."""

from __future__ import annotations

import tempfile

import pytest

from pydec.cli.main import main


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["2"], "expected +N, -N or =N ranks, such as +2, got '2'"),
        (["+2", "--host", "a:b"], "--host must read host:slots,host:slots, got 'a:b'"),
        (["-2"], "no job that pydec run started runs on"),
        (["=2", "--pid", "1", "--run-dir", "x"], "not allowed with argument"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(words, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["scale", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("pydec: error: ")
    assert err.count("\n") == 1
    assert reason in err
