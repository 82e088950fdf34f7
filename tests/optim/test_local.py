"""Combinations that cannot work, and the warning about adaptive steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.errors import ConfigError, HeterogeneityWarning

Run = Callable[..., list[Any]]
Matrix = NDArray[np.float64]
D = 6


REFUSED = [
    ("d2", "one-peer-exponential", 4, {}, "symmetric|changes every round"),
    ("beer", "base-k:k=1", 6, {}, "beer keeps its neighbours"),
    ("beer", "leaky", 6, {}, "doubly stochastic"),
    ("beer", "ring", 6, {"compressor": "randk:unbiased=true"}, "beer's estimates would grow without bound"),
    ("beer:gamma=2", "ring", 6, {}, "gamma"),
    ("choco", "ring", 6, {"estimate": True}, "does not send the models themselves"),
    ("relaysgd", "chain", 6, {"estimate": True}, "does not send the models themselves"),
    ("powergossip:order=atc", "ring", 6, {"mixing": "adaptive"}, "does not send the models themselves"),
    ("powergossip", "exponential", 6, {}, "symmetric graph.*directed"),
    ("powergossip", "random-matching", 6, {}, "keeps its neighbours for the whole run"),
    ("powergossip", "ring", 6, {"compressor": "int8"}, "compresses itself"),
    ("powergossip", "ring", 6, {"late": "drop"}, "late='drop'"),
    ("k-gt", "ring", 6, {"compressor": "int8"}, "stay in the correction"),
    ("k-gt", "leaky", 6, {}, "doubly stochastic"),
    ("k-gt", "ring", 6, {"late": "drop"}, "late='drop'.*KGT"),
    ("k-gt:outer_lr=2", "ring", 6, {}, "outer_lr"),
    ("damsgrad", "ring", 6, {"compressor": "int8"}, "shared second moment"),
    ("damsgrad", "leaky", 6, {}, "doubly stochastic"),
    ("accum-adam", "ring", 6, {"compressor": "topk:fraction=0.01"}, "keeps too little"),
    ("relaysgd", "ring", 6, {}, "along a tree.*spanning-tree:of=ring"),
    ("relaysgd", "base-k", 6, {}, "along a tree.*spanning-tree:of=torus"),
    ("relaysgd", "chain", 6, {"compressor": "int8"}, "relayed to all ranks"),
    ("d2", "base-k:k=1", 6, {}, "diverges on graphs that change.*exact-diffusion"),
    ("d2", "ring", 6, {}, r"eigenvalue of -1/3.*-0.3333.*exact-diffusion"),
    ("exact-diffusion", "exponential", 6, {}, "symmetric graph.*directed.*gradient-tracking"),
    ("decentlam", "base-k:k=1", 8, {}, r"momentum of 0.9 .* 1.05 times.*momentum=0.7 or less.*qg-dsgdm"),
    (
        "gasloc:momentum=0.9",
        "one-peer-exponential",
        16,
        {},
        r"1.2 times.*momentum=0.55 .*gossip-diloco",
    ),
    ("gasloc:momentum=0.9", "random-matching", 8, {}, "disagreement grow"),
    ("diloco", "ring", 6, {}, "averages exactly.*base-k"),
    ("choco", "base-k:k=1", 6, {}, "must not change"),
    ("noloco:pull=1.5", "random-matching", 6, {}, r"pull must be in \(0, .*\) = \(0, 1.5\) for momentum=0.5"),
    ("noloco:pull=1.45", "base-k:k=1", 8, {}, "disagreement grow.*random-matching"),
    ("noloco", "random-matching", 6, {"compressor": "topk"}, "keeps too little"),
    ("sparseloco", "star", 6, {"compressor": "int2"}, "hears all deltas.*topology complete.*choco-diloco"),
    ("sparseloco", "complete", 6, {"compressor": "int2:rounding=stochastic"}, "does not converge with Int2"),
    ("sparseloco", "complete", 6, {"late": "drop"}, "late='drop'.*SparseLoCo"),
    ("sparseloco", "complete", 6, {"init": "keep"}, "must start equal.*init='broadcast'"),
    ("sparseloco:decay=2", "complete", 6, {}, r"decay must be in \[0, 1\], got 2"),
    ("streaming-diloco:fragments=0", "ring", 6, {}, "fragments must be at least 1, got 0"),
    ("streaming-diloco:keep=1.5", "ring", 6, {}, r"keep must be in \[0, 1\], got 1.5"),
    ("streaming-diloco", "ring", 6, {"compressor": "topk"}, "keeps too little"),
    ("streaming-diloco", "ring", 6, {"mixing": "fixed:rounds=2"}, "order='cta'"),
    ("quorum-diloco", "leaky", 6, {}, "doubly stochastic"),
    ("choco-diloco", "base-k:k=2", 9, {"compressor": "topk"}, "must not change"),
    ("choco-diloco:gamma=0", "ring", 6, {}, r"gamma must be in \(0, 1\]"),
    ("gradient-tracking", "ring", 6, {"late": "drop"}, "late='drop'.*GradientTracking"),
    ("qg-dsgdm", "ring", 6, {"late": "drop"}, "late='drop'"),
    ("momentum-tracking", "ring", 6, {"compressor": "int8"}, "MomentumTracking|Int8.*none"),
    ("qg-dsgdm", "ring", 6, {"compressor": "int8"}, "divided by the learning rate"),
    ("sgp", "ring", 6, {"compressor": "topk:fraction=0.01"}, "keeps too little"),
    ("dsgdm:momentum=1", "ring", 6, {}, r"momentum must be in \[0, 1\)"),
    ("gasloc:outer_lr=0", "ring", 6, {}, "outer_lr"),
    ("dpsgd", "ring", 6, {"local_steps": 0}, "local_steps"),
    ("allreduce", "ring", 6, {"local_steps": 2}, "diloco"),
    ("dpsgd:order=cta", "ring", 6, {"mixing": "fixed:rounds=2"}, "order='cta'.*order='atc'"),
    ("diloco", "base-k:k=1", 6, {"mixing": "adaptive"}, "mixes exactly already"),
    ("dpsgd:order=atc", "ring", 6, {"estimate": True, "late": "drop"}, "every packet"),
    ("dpsgd", "leaky", 6, {}, "doubly stochastic.*algorithm='sgp'"),
    ("gradient-tracking", "leaky", 6, {}, "doubly stochastic"),
    ("exact-diffusion", "leaky", 6, {}, "doubly stochastic"),
]


@pytest.mark.parametrize(("algorithm", "graph", "size", "options", "words"), REFUSED)
def test_what_cannot_work_is_refused_with_the_way_out(
    run_peers: Run, leaky: Any, algorithm: str, graph: Any, size: int, options: Any, words: str
) -> None:
    def program(peer: Any) -> None:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
        chosen = leaky(size) if graph == "leaky" else graph
        DecentralizedOptimizer(optimizer, peer, algorithm=algorithm, topology=chosen, **options)

    with pytest.raises(ConfigError, match=words):
        run_peers(size, program)


def test_k_gt_refuses_a_momentum_and_another_optimiser(run_peers: Run) -> None:
    def program(peer: Any) -> None:
        x = [nn.Parameter(torch.zeros(2))]
        sgd = torch.optim.SGD(x, lr=0.1, momentum=0.8)
        with pytest.raises(ConfigError, match=r"momentum of 0.8.*momentum=0.*momentum-tracking"):
            DecentralizedOptimizer(sgd, peer, algorithm="k-gt", topology="ring")
        with pytest.raises(ConfigError, match="do not hold for Adam"):
            DecentralizedOptimizer(torch.optim.Adam(x), peer, algorithm="k-gt", topology="ring")

    run_peers(1, program)


@pytest.mark.parametrize("algorithm", ["dsgdm", "qg-dsgdm", "decentlam", "momentum-tracking"])
def test_a_second_momentum_and_another_optimiser_are_refused(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any) -> None:
        x = [nn.Parameter(torch.zeros(2))]
        sgd = torch.optim.SGD(x, lr=0.1, momentum=0.8)
        with pytest.raises(ConfigError, match=rf"momentum of its own.*{algorithm}:momentum=0.8"):
            DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring")
        with pytest.raises(ConfigError, match=r"do not hold for Adam.*dpsgd"):
            DecentralizedOptimizer(torch.optim.Adam(x), peer, algorithm=algorithm, topology="ring")

    run_peers(1, program)


def test_adaptive_steps_with_plain_mixing_warn_once(run_peers: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydec.optim.local._warned", set())

    def make(peer: Any, optimizer: Any = torch.optim.Adam, **options: Any) -> None:
        DecentralizedOptimizer(optimizer([nn.Parameter(torch.zeros(2))], lr=0.1), peer, **options)

    def silent(peer: Any) -> None:
        make(peer, iid=True)
        make(peer, algorithm="gradient-tracking")
        make(peer, torch.optim.SGD)

    def heard(peer: Any) -> None:
        make(peer)
        make(peer)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_peers(3, silent)
        run_peers(1, heard)
        assert not caught
        run_peers(3, heard)
    assert [warning.category for warning in caught] == [HeterogeneityWarning]
    assert "near the median" in str(caught[0].message)
    assert "gradient-tracking" in str(caught[0].message)


@pytest.mark.parametrize("algorithm", ["qg-dsgdm", "decentlam", "exact-diffusion", "d2", "k-gt", "dsgdm"])
def test_steps_with_a_rate_of_0_divide_by_nothing(run_peers: Run, algorithm: str) -> None:
    def program(peer: Any) -> float:
        x = nn.Parameter(torch.full((3,), float(peer.rank)))
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.0), peer, algorithm=algorithm, topology="ring", init="keep"
        )
        for step in range(40):
            opt.param_groups[0]["lr"] = 0.1 if 10 <= step < 15 else 0.0
            x.grad = torch.ones(3)
            opt.step()
            assert torch.isfinite(x).all()
        opt.close()
        return float(x[0].detach())

    assert np.ptp(run_peers(5, program)) < 4.0  # nearer than at the start
