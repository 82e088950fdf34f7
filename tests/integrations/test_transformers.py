"""Hugging Face's Trainer as one peer: what the callback checks, logs and ends."""

import os
from types import SimpleNamespace

import pytest
import torch

import pydec
from pydec.errors import ConfigError

pytest.importorskip("transformers", reason="needs pip install 'pydec-train[integrations]'")

from pydec.integrations import hide_launcher
from pydec.integrations.transformers import GossipCallback

ONE = SimpleNamespace(world_size=1)


class AcceleratedOptimizer:
    """As Accelerate wraps one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


@pytest.mark.parametrize("wrap", [lambda optimizer: optimizer, AcceleratedOptimizer])
def test_logs_of_training_say_how_far_models_are_apart(wrap):
    with pydec.init() as peer:
        sgd = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
        optimizer = pydec.DecentralizedOptimizer(sgd, peer, iid=True)
        state, training, evaluation = SimpleNamespace(log_history=[{}]), {"loss": 1.0}, {"eval_loss": 1.0}
        callback = GossipCallback()
        callback.on_log(ONE, state, None, logs=training)  # before training
        assert training == {"loss": 1.0}
        callback.on_train_begin(ONE, state, None, optimizer=wrap(optimizer))
        callback.on_log(ONE, state, None, logs=evaluation)
        callback.on_log(ONE, state, None, logs=training)
        callback.on_train_end(ONE, state, None)
    assert evaluation == {"eval_loss": 1.0}
    assert training["consensus_distance"] == 0.0
    assert state.log_history == [{"consensus_distance": 0.0}]


def test_an_optimizer_that_does_not_gossip_is_refused():
    sgd = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=r"optimizer is SGD, expected pydec.DecentralizedOptimizer"):
        GossipCallback().on_train_begin(ONE, None, None, optimizer=sgd)


def test_a_trainer_that_shares_its_work_is_refused():
    with pydec.init() as peer:
        sgd = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1)
        optimizer = pydec.DecentralizedOptimizer(sgd, peer, iid=True)
        with pytest.raises(ConfigError, match="among 4 processes, expected 1; call"):
            GossipCallback().on_train_begin(SimpleNamespace(world_size=4), None, None, optimizer=optimizer)


def test_a_launchers_variables_are_hidden(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    hide_launcher()

    assert "OMPI_COMM_WORLD_SIZE" not in os.environ
    assert os.environ["OMPI_COMM_WORLD_RANK"] == "1"
