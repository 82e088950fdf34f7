"""Algorithms that take Adam's kind of step themselves, and where local Adam with plain mixing ends."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, gossip
from pydec.errors import ConfigError, HeterogeneityWarning

Run = Callable[..., list[Any]]
D = 6


def settle(run_peers: Run, algorithm: str, optimizer: Any, lr: float, graph: str = "ring") -> list[float]:
    """Where four ranks end whose optima are 0, 0, 0 and 8, with a rate that falls."""

    def program(peer: Any) -> float:
        x = nn.Parameter(torch.tensor([1.0]))
        options = {"topology": graph, "algorithm": algorithm, "iid": True}
        opt = DecentralizedOptimizer(optimizer([x], lr=lr), peer, **options)
        for step in range(450):
            opt.param_groups[0]["lr"] = lr * (1.0 if step < 250 else 0.2 if step < 400 else 0.02)
            opt.zero_grad()
            (0.5 * (x - 8.0 * (peer.rank == 3)).square().sum()).backward()
            opt.step()
        opt.close()
        return x.item()

    return run_peers(4, program)


@pytest.mark.parametrize("algorithm", ["dpsgd", "gossip-diloco", "accum-adam:every=1"])
def test_local_adam_with_plain_mixing_finds_the_median(run_peers: Run, algorithm: str) -> None:
    optimizer = torch.optim.SGD if algorithm.startswith("accum") else torch.optim.Adam
    assert np.abs(settle(run_peers, algorithm, optimizer, 0.05)).max() < 0.4


@pytest.mark.parametrize("graph", ["ring", "one-peer-exponential"])
def test_damsgrad_finds_the_mean(run_peers: Run, graph: str) -> None:
    assert settle(run_peers, "damsgrad", torch.optim.SGD, 0.05, graph) == pytest.approx([2.0] * 4, abs=0.05)


def test_the_shared_second_moments_add_up_to_the_largest(run_peers: Run, quadratics: Any, train: Any) -> None:
    size, problem = 6, quadratics(6)

    def probe(opt: Any) -> Any:
        rule = opt._rounds.parts[0].rule
        return rule.shared[:D].astype(np.float64), rule.largest[:D].astype(np.float64)

    options = {"algorithm": "damsgrad:order=atc", "topology": "base-k:k=1"}
    results = run_peers(size, lambda peer: train(peer, problem, [0.02] * 20, probe, **options))
    for t in range(20):
        shared, largest = (sum(result[1][t][k] for result in results) for k in (0, 1))
        np.testing.assert_allclose(shared, largest, rtol=1e-5)
    own = np.stack([result[1][-1][1] for result in results])
    assert own.std(0).max() > 1e-3


@pytest.mark.parametrize("every", [1, 3])
def test_accum_adam_alone_is_torch_s_adamw_with_steadier_moments(run_peers: Run, every: int) -> None:
    target = torch.linspace(-1.0, 2.0, 8)

    def program(peer: Any) -> tuple[Any, Any]:
        x, y = (nn.Parameter(torch.ones(8)) for _ in range(2))
        groups = [{"params": [x], "weight_decay": 0.1}]
        spec = f"accum-adam:every={every}"
        opt = DecentralizedOptimizer(torch.optim.SGD(groups, lr=0.02), peer, topology="ring", algorithm=spec)
        adamw = torch.optim.AdamW([y], lr=0.02, betas=(0.9, 0.98), weight_decay=0.1)
        for _ in range(20):
            for parameter, optimizer in ((x, opt), (y, adamw)):
                optimizer.zero_grad()
                (0.5 * (parameter - target).square().sum()).backward()
                optimizer.step()
        return x.detach().numpy().copy(), y.detach().numpy().copy()

    ((x, y),) = run_peers(1, program)
    if every == 1:
        np.testing.assert_allclose(x, y, atol=1e-6)
    else:
        assert 1e-4 < np.abs(x - y).max() < 0.1


@pytest.mark.parametrize("algorithm", ["accum-adam", "damsgrad"])
def test_every_group_has_its_own_weight_decay_and_no_other(run_peers: Run, algorithm: str) -> None:
    """With gradients of zero only the weight moves, by its decay; the bias stays."""

    def program(peer: Any) -> tuple[float, float]:
        weight, bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
        groups = [{"params": [weight], "weight_decay": 0.5}, {"params": [bias], "weight_decay": 0.0}]
        sgd = torch.optim.SGD(groups, lr=0.1)
        opt = DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring", iid=True)
        for _ in range(3):
            for parameter in (weight, bias):
                parameter.grad = torch.zeros(3)
            opt.step()
        return weight.mean().item(), bias.mean().item()

    for weight, bias in run_peers(3, program):
        assert weight == pytest.approx(0.95**3, rel=1e-6)
        assert bias == 1.0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("accum-adam:every=0", "at least 1"),
        ("accum-adam:beta2=1", r"beta2 must be in \[0, 1\)"),
        ("damsgrad:eps=0", "eps"),
        ("damsgrad:order=both", "order"),
    ],
)
def test_wrong_options_are_refused(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        gossip.make(spec)


@pytest.mark.parametrize("algorithm", ["accum-adam", "damsgrad"])
def test_a_second_adaptive_optimiser_is_refused(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any) -> None:
        x = [nn.Parameter(torch.zeros(2))]
        with pytest.raises(ConfigError, match=r"adaptive step itself.*not AdamW.*torch.optim.SGD"):
            DecentralizedOptimizer(torch.optim.AdamW(x), peer, algorithm=algorithm, topology="ring")
        sgd = torch.optim.SGD(x, lr=0.1, momentum=0.8)
        with pytest.raises(ConfigError, match=rf"momentum of 0.8.*{algorithm}:beta1=0.8"):
            DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring")

    run_peers(1, program)


class Lion(torch.optim.SGD):
    """Stands for any optimiser of that name."""


@pytest.mark.parametrize(
    ("optimizer", "algorithm", "name"),
    [
        (torch.optim.AdamW, "dpsgd", "AdamW"),
        (torch.optim.RMSprop, "gossip-diloco", "RMSprop"),
        (torch.optim.Rprop, "sgp", "Rprop"),
        (torch.optim.Adadelta, "choco", "Adadelta"),
        (Lion, "dpsgd", "Lion"),
        (torch.optim.SGD, "accum-adam", "AccumAdam"),
        (torch.optim.AdamW, "gradient-tracking", ""),
        (torch.optim.AdamW, "beer", ""),
        (torch.optim.SGD, "damsgrad", ""),
        (torch.optim.SGD, "dpsgd", ""),
    ],
)
def test_steps_that_prefer_the_median_warn_and_name_damsgrad(
    run_peers: Run, monkeypatch: pytest.MonkeyPatch, optimizer: Any, algorithm: str, name: str
) -> None:
    monkeypatch.setattr("pydec.optim.local._warned", set())

    def program(peer: Any) -> None:
        x = [nn.Parameter(torch.zeros(2))]
        DecentralizedOptimizer(optimizer(x, lr=0.1), peer, algorithm=algorithm, topology="ring")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_peers(3, program)
    assert [warning.category for warning in caught] == ([HeterogeneityWarning] if name else [])
    if name:
        assert str(caught[0].message).startswith(name)
        assert "algorithm='damsgrad'" in str(caught[0].message)
