"""``pydec train`` turns words into a configuration and a job into an exit status."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path

import pytest

from pydec.cli import train as command
from pydec.cli.main import main, parser_of
from pydec.errors import ConfigError

LINE = """
    import torch
    from torch.nn.functional import mse_loss
    from torch.utils.data import TensorDataset
    from pydec.train import Task

    def line(scale: float = 1.0):
        x = torch.linspace(-1, 1, 64).unsqueeze(1)
        data = TensorDataset(x, 2 * scale * x)
        return Task(model=torch.nn.Linear(1, 1), train=data, loss=mse_loss, validation=data)
"""


@pytest.fixture
def line(tmp_path, monkeypatch):
    (tmp_path / "pydec_line.py").write_text(textwrap.dedent(LINE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "pydec_line", raising=False)
    return "pydec_line:line"


def config(words: str):
    return command.config_of(parser_of("train").parse_args(words.split()))


def test_words_become_a_configuration():
    found = config(
        "x --steps 5 --optimizer sgd:nesterov=true --momentum 0.9 --order cta --alpha 0.1 --deadline 9 "
        "--grace 2.5"
    )
    assert found.optimizer == "sgd:nesterov=true,momentum=0.9"
    assert found.algorithm == "dpsgd:order=cta"
    assert (found.steps, found.alpha, found.deadline_s, found.grace_s) == (5, 0.1, 9.0, 2.5)
    assert config("x --grace auto").grace_s == 0.0
    assert config("x --algorithm choco:gamma=0.5 --order atc").algorithm == "choco:gamma=0.5,order=atc"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("x --steps 5 --epochs 1", "--steps and --epochs exclude each other"),
        ("x --steps many", "argument --steps: invalid integer value: 'many'"),
        ("x --lr 0", "argument --lr: must be above 0 and finite, got 0"),
        ("x --grace 0", "argument --grace: must be 'auto' or seconds above 0, got '0'"),
        ("x --alpha nan", "argument --alpha: must be above 0 and finite, got nan"),
        ("x --momentum 0.9", "--momentum and --weight-decay need --optimizer"),
        ("x --optimizer adamw --momentum 0.9", "--momentum does not go with optimizer 'adamw'"),
        ("x --order cta --algorithm dpsgd:order=atc", "the order is given twice"),
        ("x --order both", "argument --order: invalid choice: 'both'"),
    ],
)
def test_wrong_words_are_named(words, message):
    with pytest.raises(ConfigError, match=message):
        config(words)


def test_a_short_run_from_the_command_line(line, capsys):
    words = [
        "train",
        line,
        "--epochs",
        "4",
        "--batch-size",
        "16",
        "--lr",
        "0.5",
        "--run-dir",
        "run",
        "--compare-solo",
    ]
    assert main(words) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-6].split() == ["run", "directory", "run"]
    assert out[-3].startswith("one peer alone")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "done"
    assert summary["loss"] == pytest.approx(summary["solo"]["loss"], rel=1e-5)


def test_the_command_in_config_json_repeats_the_run(line):
    assert (
        main(["train", line + ":scale=3", "--steps", "5", "--run-dir", "a", "--quiet", "--batch-size", "8"])
        == 0
    )
    again = json.loads(Path("a/config.json").read_text())["command"]
    assert main([*again[1:], "--run-dir", "b", "--quiet"]) == 0
    losses = [
        [json.loads(row)["loss"] for row in Path(run, "metrics/rank-0.jsonl").read_text().splitlines()]
        for run in "ab"
    ]
    assert losses[0] == losses[1]


def test_json_prints_the_summary_and_nothing_else(line, capsys):
    assert main(["train", line, "--steps", "2", "--json", "--batch-size", "8", "--run-dir", "r"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(Path("r/summary.json").read_text())


def test_quiet_prints_nothing(line, capsys):
    assert main(["train", line, "--steps", "2", "--quiet", "--batch-size", "8"]) == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nosuch"], 2, "unknown task 'nosuch'; known: fashion-mnist, fashion-mnist-linear, stdlib-lm"),
        (["pydec_line:line", "--topology", "rings"], 2, "unknown topology 'rings'"),
        (["fashion-mnist", "--data", "nowhere"], 1, "apt-get install dataset-fashion-mnist"),
        (
            ["pydec_line:line", "--run-dir", "/proc/nowhere"],
            1,
            "run directory /proc/nowhere cannot be written",
        ),
    ],
)
def test_failures_cost_one_line(line, capsys, words, status, message):
    assert main(["train", *words]) == status
    err = capsys.readouterr().err
    assert err.startswith("pydec: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_before_it_has_met_the_others_a_new_host_goes_by_the_words():
    words = "--resume R --secure on --ledger L --pad --deadline 9 --grace 3"
    found = command._asked_for(parser_of("train").parse_args(words.split()))
    assert (found.secure, found.ledger, found.pad, found.deadline_s, found.grace_s) == (
        "on",
        "L",
        True,
        9.0,
        3.0,
    )
    with pytest.raises(ConfigError, match="--key with --ledger"):
        command._asked_for(parser_of("train").parse_args(f"{words} --key k".split()))
