"""One trace of all ranks' files."""

from __future__ import annotations

import json
import os

import pytest

from pydec.errors import ConfigError, SetupError
from pydec.trace.__main__ import main
from pydec.trace.merge import merge, origin_ns, part, renewed


def write(directory, rank, text):
    part(directory, rank).parent.mkdir(exist_ok=True)
    part(directory, rank).write_text(text)


def test_all_ranks_are_in_it(tmp_path, capsys):
    for rank in range(3):
        write(tmp_path, rank, f'{{"pid":{rank}}}\n\n{{"pid":{rank},"ts":1.5}}\n{{"cut"')
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'trace.json'}\n"
    found = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [event["pid"] for event in found] == [0, 0, 1, 1, 2, 2]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["trace.json"]


def test_it_is_made_anew_only_if_a_rank_has_written_since(tmp_path):
    assert renewed(tmp_path) is None
    write(tmp_path, 0, '{"pid":0}\n')
    target = tmp_path / "trace.json"
    assert renewed(tmp_path) == target
    target.write_text("kept")
    os.utime(part(tmp_path, 0), ns=(1, 1))
    assert renewed(tmp_path) == target
    assert target.read_text() == "kept"
    os.utime(target, ns=(0, 0))
    assert renewed(tmp_path) == target
    assert target.read_text() != "kept"


def test_a_run_that_goes_on_keeps_its_origin(tmp_path):
    first = origin_ns(tmp_path)
    assert abs(origin_ns(tmp_path) - first) < 60 * 10**9  # not a new origin, whose times begin at 0
    (tmp_path / "trace" / "began").write_text("0")
    assert origin_ns(tmp_path) > 10**18


def test_bad_input(tmp_path, capsys):
    assert main([]) == 2
    assert main([str(tmp_path)]) == 2
    assert "holds no trace" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="pydec train --trace"):
        merge(tmp_path)
    write(tmp_path, 0, '{"pid":0}\n')
    (tmp_path / "trace.json").mkdir()
    with pytest.raises(SetupError, match="cannot be written"):
        merge(tmp_path)
