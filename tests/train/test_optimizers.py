"""Local optimisers by name, and the options that the command line adds to them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pydec.errors import ConfigError
from pydec.train import optimizers


def test_specifications_reach_torch():
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    sgd = optimizers.make("sgd:momentum=0.9,nesterov=true", model.parameters(), 0.1)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.param_groups[0]["nesterov"]
    adamw = optimizers.make("adamw:weight_decay=0.1,beta2=0.95", model.parameters(), 0.1)
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.0]
    assert [len(group["params"]) for group in adamw.param_groups] == [1, 3]
    assert adamw.param_groups[0]["betas"] == (0.9, 0.95)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adam", "unknown optimizer 'adam'; known: adamw, sgd"),
        ("sgd:momentum=1", r"momentum must be in \[0, 1\), got 1.0"),
        ("sgd:nesterov=true", "needs a momentum above 0"),
        ("sgd:weight_decay=-1", "weight_decay must be at least 0, got -1.0"),
        ("adamw:beta1=2", r"beta1 must be in \[0, 1\), got 2.0"),
    ],
)
def test_values_out_of_range_are_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        optimizers.make(spec, [nn.Parameter(torch.zeros(1))], 0.1)


def test_options_are_merged_into_a_specification():
    assert optimizers.merge("sgd", momentum=0.9, weight_decay=None) == "sgd:momentum=0.9"
    assert optimizers.merge("sgd:momentum=0.5", weight_decay=0.001) == "sgd:momentum=0.5,weight_decay=0.001"
    with pytest.raises(ConfigError, match="--momentum does not go with optimizer 'adamw'"):
        optimizers.merge("adamw", momentum=0.9)
    with pytest.raises(ConfigError, match="momentum is given twice"):
        optimizers.merge("sgd:momentum=0.5", momentum=0.9)
