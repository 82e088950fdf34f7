"""`pydec bench`: known suites, rows in the agreed form, one clear line for mistakes."""

from __future__ import annotations

import argparse
import json
import math

import pytest

from pydec.cli import bench
from pydec.errors import ConfigError, SetupError


def run(*words):
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    return bench.run(parser.parse_args(words))


def test_the_kernel_suite_writes_its_rows(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert run("kernels", "--quick", "--rounds", "1", "--json", str(path)) == 0
    rows = json.loads(path.read_text())
    names = {row["name"] for row in rows}
    assert {"mix of 3", "int8 encode", "int8 decode + accumulate", "top-k with feedback"} <= names
    for row in rows:
        assert row["suite"] == "kernels"
        if row["name"].startswith("call: "):
            assert (row["unit"], row["peer"]) == ("us", "torch a.add_(b)")
        else:
            assert row["unit"] == "ms"
            assert row["floor_fraction"] > 0
        if (
            row["ratio"] is None
        ):  # a library that is not installed, and how to install it, or too slow a start
            assert row["peer_value"] is None
            assert "install" in row["peer"] or row["peer"] == "torch.compile: not compiled for quick runs"
        else:
            assert math.isclose(row["ratio"], row["peer_value"] / row["value"])
    assert {row["params"]["threads"] for row in rows} == {1, 2}
    assert {"torch eager"} <= {row["peer"] for row in rows if row["ratio"]}
    assert "cpu" in rows[0]["machine"]
    assert "pydec" in rows[0]["versions"]
    assert "mix of 3" in capsys.readouterr().out


def test_an_unknown_suite_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown suite 'kernel'; known: .*kernels"):
        run("kernel")


def test_mistakes_are_found_before_anything_is_measured(tmp_path):
    with pytest.raises(ConfigError, match="--rounds must be at least 1, got 0"):
        run("kernels", "--rounds", "0")
    with pytest.raises(SetupError, match=r"cannot write .*rows\.json: No such file or directory"):
        run("kernels", "--json", str(tmp_path / "missing" / "rows.json"))
