"""``pydec simulate``: its words, its files, and mistakes that cost one line."""

from __future__ import annotations

import json

import pytest

from pydec.cli.main import main

VECTORS = ["simulate", "--peers", "12", "--vectors", "8", "--steps", "5"]
BLOBS = ["simulate", "--peers", "6", "--task", "tests.simulate.toy:blobs", "--steps", "4"]


def test_a_simulation_says_what_came_of_it(capsys, tmp_path):
    words = [
        "--link",
        "100mbit/20mbit,20ms",
        "--stragglers",
        "lognormal:0.5",
        "--json",
        str(tmp_path / "x.json"),
    ]
    assert main([*BLOBS, *words, "--plot", str(tmp_path / "x.png")]) == 0
    out = capsys.readouterr().out
    for label in ("memory", "averaged model", "apart", "sent", "virtual time"):
        assert f"\n{label:<15} " in f"\n{out}"
    found = json.loads((tmp_path / "x.json").read_text())
    assert found["summary"]["finished"] == 6
    assert found["rows"][-1]["step"] == 4
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_the_command_of_the_help_on_few_peers(capsys):
    words = [
        "--peers",
        "24",
        "--topology",
        "base-k",
        "--algorithm",
        "choco",
        "--compressor",
        "topk:fraction=0.1",
    ]
    words += [
        "--churn",
        "0.02",
        "--stragglers",
        "lognormal:0.5",
        "--byzantine",
        "0.1",
        "--link",
        "100mbit,20ms",
    ]
    assert main([*BLOBS, *words, "--batch-size", "4"]) == 0
    out = capsys.readouterr().out
    assert "choco-peers: the form of choco for graphs that change" in out
    assert "byzantine       2 peers send alie" in out
    assert "bounds nothing of what liars do" in out


@pytest.mark.timeout(240)
def test_a_sweep_writes_a_table_and_pictures_and_goes_on(capsys, tmp_path):
    words = [
        *VECTORS,
        "--sweep",
        "topology",
        "ring",
        "base-k",
        "--sweep",
        "peers",
        "8",
        "16",
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--jobs", "2"]) == 0
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 5
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"curves.png", "against-peers.png"}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert len(before) == 4
    assert main([*words, "--quiet"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert "base-k" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["simulate"], 2, "--peers"),
        ([*VECTORS, "--peers", "0"], 2, "--peers must be in [1, 1,000,000], got 0"),
        ([*VECTORS, "--churn", "-1"], 2, "chance in [0, 1)"),
        ([*VECTORS, "--task", "fashion-mnist-linear"], 2, "leave --task out"),
        ([*VECTORS, "--topology", "nosuch"], 2, "unknown topology 'nosuch'"),
        ([*VECTORS, "--memory", "1kB"], 1, "12 peers take"),
        ([*VECTORS, "--memory", "much"], 2, "a size such as 500MB"),
        ([*VECTORS, "--link", "fast"], 2, "--link must be"),
        ([*VECTORS, "--step-time", "5"], 2, "--step-time must be a time"),
        ([*VECTORS, "--byzantine", "-0.1"], 2, "--byzantine"),
        ([*VECTORS, "--out", "x"], 2, "are of sweeps"),
        ([*VECTORS, "--sweep", "nosuch", "1"], 2, "--sweep nosuch: no such option; known: aggregate"),
        ([*VECTORS, "--sweep", "peers"], 2, "--sweep peers needs values"),
        ([*VECTORS, "--sweep", "peers", "8", "0"], 2, "sweep at peers 0: --peers must be in"),
        ([*VECTORS, "--sweep", "peers", "8", "--json", "x"], 2, "leave --json and --plot out"),
        (["simulate", "--peers", "4", "--task", "nosuch"], 2, "unknown task 'nosuch'"),
        (["simulate", "--peers", "4", "--data", "/nowhere"], 1, "apt-get install dataset-fashion-mnist"),
    ],
)
def test_mistakes_cost_one_line(capsys, words, status, reason):
    assert main(words) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert reason in lines[0]
