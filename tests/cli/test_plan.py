from __future__ import annotations

import json

import pytest

from pydec.cli.main import main
from pydec.cli.plan import number, seconds

JOB = ["plan", "--params", "25e6", "--peers", "1000", "--link", "1gbit,20ms", "--step", "300ms"]


def test_one_screen(capsys):
    assert main(JOB) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    labels = [line[:14].strip() for line in lines if line[:14].strip()]
    assert labels == [
        "job", "method", "topology", "sent", "gossip", "step", "all-reduce", "distance", "memory", "ledger",
        "committee",
    ]  # fmt: skip


def test_json_holds_every_number_and_formula(capsys):
    given = ["--algorithm", "dpsgd", "--compressor", "int8", "--local-steps", "2", "--codec-gbps", "10"]
    assert main([*JOB, *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["algorithm"], found["compressor"], found["local_steps"]) == ("dpsgd", "int8", 2)
    assert found["params"] == 25_000_000
    assert found["bytes_per_step"] == pytest.approx(found["packet_bytes"] / 2)
    assert found["speedup"] == pytest.approx(found["allreduce_step_s"] / found["step_s"])
    assert found["log10_unsafe"] < -9
    assert set(found["formulas"]) >= {"sent", "round", "step", "all-reduce", "distance", "memory", "ledger"}


def test_explain_states_the_formula_under_each_line(capsys):
    assert main([*JOB, "--explain", "--compressor", "int8", "--algorithm", "dpsgd"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n              = ") >= 8
    assert "hypergeometric" in out


@pytest.mark.parametrize(
    ("word", "value"), [("7e9", 7_000_000_000), ("1000", 1000), ("99999999999999999", 99999999999999999)]
)
def test_numbers(word, value):
    assert number(word) == value


@pytest.mark.parametrize(
    ("word", "value"), [("2s", 2), ("150ms", 0.15), ("3m", 180), ("20us", 2e-5), ("0.5", 0.5)]
)
def test_times(word, value):
    assert seconds(word) == pytest.approx(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--peers", "1"], "peers must be an integer in [2, 100,000], got 1"),
        (["--peers", "-4"], "peers must be an integer"),
        (["--params", "2.5"], "must be a whole number such as 1000 or 7e9, got 2.5"),
        (["--params", "inf"], "whole number"),
        (["--step", "-2s"], "--step"),
        (["--step", "0"], "must be a time above 0"),
        (["--link", "fast"], "--link must be RATE or UP/DOWN"),
            (["--link", ""], "a plan needs the rate of a link"),
        (["--link", "-1gbit"], "--link"),
        (["--topology", "mesh"], "unknown topology 'mesh'"),
        (["--compressor", "zip"], "unknown compressor 'zip'"),
        (["--faulty", "0.4"], "faulty must be in [0, 1/3), got 0.4"),
    ],
)  # fmt: skip
def test_bad_input_costs_one_line(change, message, capsys):
    assert main([*JOB, *change]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert message in err
