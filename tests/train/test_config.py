"""A configuration checks itself, takes the task's defaults, and can be said again as a command."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from pydec.cli import train as command
from pydec.cli.main import parser_of
from pydec.errors import ConfigError
from pydec.train import Defaults, Task
from pydec.train.config import TrainConfig, document

DATA = TensorDataset(torch.zeros(103, 1), torch.zeros(103, 1))
TASK = Task(
    model=nn.Linear(1, 1), train=DATA, loss=mse_loss, defaults=Defaults(batch_size=5, lr=0.3, epochs=2)
)


def test_what_is_left_open_is_taken_from_the_task():
    resolved = TrainConfig("mine:line").resolve(TASK, 4)
    assert (resolved.batch_size, resolved.lr, resolved.compressor) == (5, 0.3, "int8")
    assert resolved.steps == 2 * (103 // 4 // 5)
    assert resolved.log_every == 1
    assert TrainConfig("t", algorithm="allreduce").resolve(TASK, 4).compressor == "none"
    assert TrainConfig("t", epochs=3.0).resolve(TASK, 1).steps == 60
    assert TrainConfig("t", steps=7).resolve(TASK, 1).steps == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3, "epochs": 1.0}, "--steps and --epochs exclude each other"),
        ({"steps": 3, "duration_s": 1.0}, "--duration excludes --steps and --epochs"),
        ({"steps": -1}, "--steps must be at least 1, got -1"),
        ({"lr": float("nan")}, "--lr must be above 0 and finite, got nan"),
        ({"deadline_s": 0.0}, "--deadline must be above 0 seconds"),
        ({"schedule": "step"}, "--schedule must be one of constant, cosine"),
        ({"nan_policy": "ignore"}, "--nan-policy must be one of raise, skip, continue"),
        ({"seed": 2**32}, r"--seed must be below 2\*\*32"),
    ],
)
def test_values_out_of_range_name_the_option(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig("t", **options)


def test_a_batch_larger_than_a_share_names_the_way_out():
    with pytest.raises(
        ConfigError, match=r"--batch-size 64 is more than the 25 samples .* use --batch-size 25 or less"
    ):
        TrainConfig("t", batch_size=64).resolve(TASK, 4)


def test_the_command_of_a_run_asks_for_the_same_run():
    words = "fashion-mnist --epochs 2 --alpha 0.1 --order cta --optimizer sgd --momentum 0.9 --compare-solo"
    parser = parser_of("train")
    config = command.config_of(parser.parse_args(words.split()))
    for one in (config, config.resolve(TASK, 2)):
        said = one.command()
        assert said[:2] == ["pydec", "train"]
        assert command.config_of(parser.parse_args(said[2:])) == one


def test_the_cosine_warms_up_and_comes_down():
    config = TrainConfig("t", steps=100, schedule="cosine", lr=1.0)
    rates = [config.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0.1 <= rates[-1] < 0.11
    assert TrainConfig("t", steps=10, schedule="constant", lr=0.5).rate(9) == 0.5


def test_the_document_holds_what_a_second_run_needs():
    found = document(TrainConfig("t").resolve(TASK, 2), 2, 2, {"files": 3}, "2026-01-01T00:00:00", split="ab")
    assert found["ranks"] == 2
    assert found["options"]["lr"] == 0.3
    assert found["versions"]["torch"] == torch.__version__ or found["versions"]["torch"] in torch.__version__
    assert found["split"] == "ab"


def test_a_timed_run_counts_no_steps_and_its_schedule_follows_the_clock():
    resolved = TrainConfig("t", algorithm="adsgd", duration_s=100.0, schedule="cosine", lr=1.0).resolve(
        TASK, 4
    )
    assert (resolved.steps, resolved.log_every) == (0, 10)
    assert "--duration 100.0" in " ".join(resolved.command())
    rates = [resolved.rate(7, elapsed_s) for elapsed_s in (0.0, 2.5, 5.0, 52.5, 100.0, 110.0)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.55, 0.1, 0.1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"duration_s": 5.0}, "dpsgd needs as many of all; use --steps or --epochs"),
        ({"algorithm": "adsgd", "eval_every": 5}, "--eval-every needs all ranks at the same step, and adsgd"),
    ],
)
def test_what_asynchronous_and_other_algorithms_do_not_share_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig("t", **options).resolve(TASK, 4)
