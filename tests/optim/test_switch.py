"""``auto`` through the optimiser: every algorithm that compresses, and a restart in the middle of a trial."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.gossip.switch import Switch

Run = Callable[..., list[Any]]
ALGORITHMS = [
    "dpsgd:order=atc",
    "dpsgd",
    "dsgdm",
    "sgp",
    "choco",
    "gossip-diloco",
    "gasloc",
    "noloco",
    "quorum-diloco",
    "beer",
]


@pytest.mark.parametrize(
    ("algorithm", "graph"),
    [("dpsgd", "hierarchical:m=2"), *((algorithm, "ring") for algorithm in ALGORITHMS)],
)
def test_switching_in_the_middle_trains_like_no_compression(
    paths: Any, quadratics: Any, algorithm: str, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, problem, rates = 6, quadratics(6), [0.05] * 14
    options = {"algorithm": algorithm, "topology": graph}
    plain = paths(size, problem, rates, compressor="none", **options)
    monkeypatch.setattr(Switch, "choose", lambda self, round: round % 2 == 1)
    switched = paths(size, problem, rates, compressor="auto", **options)
    assert 0 < np.abs(switched - plain).max() < 0.2 * np.abs(plain).max()


def test_a_run_resumed_within_a_trial_has_the_bits_of_an_undisturbed_one(
    run_peers: Run, quadratics: Any
) -> None:
    problem = quadratics(4)

    def program(peer: Any, resume_at: int) -> tuple[Any, bool]:
        def make() -> tuple[nn.Parameter, DecentralizedOptimizer]:
            x = nn.Parameter(torch.zeros(6))
            sgd = torch.optim.SGD([x], lr=0.1)
            return x, DecentralizedOptimizer(sgd, peer, compressor="auto", topology="ring")

        x, opt = make()
        for step in range(14):
            if step == resume_at:
                saved, model = copy.deepcopy(opt.state_dict()), x.detach().clone()
                opt.close()
                x, opt = make()
                with torch.no_grad():
                    x.copy_(model)
                opt.load_state_dict(saved)
            assert opt._rounds is not None
            switch = opt._rounds._switch
            assert switch is not None
            switch._costs[0] = 1.0  # no time passes on the local cluster's clock
            opt.zero_grad()
            problem.loss(peer.rank, x).backward()
            opt.step()
        opt.close()
        return x.detach().numpy().copy(), opt.compressing

    whole, resumed = (run_peers(4, lambda peer, at=at: program(peer, at)) for at in (-1, 6))
    for (a, packed_a), (b, packed_b) in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
        assert packed_a
        assert packed_b
