"""Scores are means over samples, however the samples are cut into batches and ranks."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

from pydec.comm.local import LocalCluster
from pydec.train import Task
from pydec.train.evaluate import evaluate, evaluate_together, sums, worst


def task(**options):
    x = torch.linspace(0, 1, 11).unsqueeze(1)
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))
    with torch.no_grad():
        model[0].weight.fill_(2.0)
        model[0].bias.fill_(0.0)
    data = TensorDataset(x, torch.zeros(11, 1))
    return Task(model=model, train=data, loss=mse_loss, validation=data, **options)


class Member:
    def __init__(self, transport):
        self.transport, self.rank, self.size = transport, transport.rank, transport.size

    def check(self):
        pass

    def busy(self):
        return nullcontext()


MEAN = sum((2 * i / 10) ** 2 for i in range(11)) / 11


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_batches_weigh_as_many_samples_as_they_hold(batch_size):
    one = task()
    loss, _, count = sums(one, one.model, slice(None), batch_size)
    assert loss / count == pytest.approx(MEAN, rel=1e-6)
    assert one.model.training


def test_metric_and_bits_have_their_names():
    one = task(metric=lambda a, b: (a < 1).float().mean(), metric_name="small", loss_is_nats_per_byte=True)
    found = evaluate(one, one.model)
    assert set(found) == {"loss", "small", "bits_per_byte"}
    assert found["small"] == pytest.approx(5 / 11)
    assert found["bits_per_byte"] == pytest.approx(found["loss"] / math.log(2))


@pytest.mark.parametrize("size", [1, 3, 20])
def test_ranks_share_the_work_and_agree(size):
    def program(transport):
        one = task()
        return evaluate_together(one, one.model, Member(transport))["loss"]

    found = LocalCluster(size).run(program)
    assert len(set(found)) == 1
    assert found[0] == pytest.approx(MEAN, rel=1e-6)


def test_the_worst_rank_is_the_one_with_the_highest_loss():
    def program(transport):
        one = task()
        with torch.no_grad():
            one.model[0].bias.fill_({0: 0.0, 1: 5.0, 2: 1.0}[transport.rank])
        return worst(one, one.model, Member(transport))

    found = LocalCluster(3).run(program)
    assert [entry["rank"] for entry in found] == [1, 1, 1]


def test_a_diverged_rank_does_not_spoil_the_others():
    def program(transport):
        one = task()
        if transport.rank == 1:
            one.model[0].weight.data.fill_(float("nan"))
        return worst(one, one.model, Member(transport)), evaluate(one, one.model)

    found = LocalCluster(2).run(program)
    assert found[0][0]["rank"] == 1
    assert math.isinf(found[0][0]["loss"])
    assert math.isnan(found[1][1]["loss"]) or math.isinf(found[1][1]["loss"])


def test_no_validation_data_means_no_score():
    one = task()
    one.validation = None
    assert evaluate(one, one.model) == {}
