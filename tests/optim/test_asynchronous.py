"""The asynchronous algorithms as the optimiser runs them: at any pace, saved, merged, refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.errors import ConfigError


def train(peer: Any, problem: Any, pace_s: float, until_s: float, dtype: torch.dtype, **options: Any) -> Any:
    x = nn.Parameter(torch.zeros(6, dtype=dtype))
    opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.3), peer, topology="ring", **options)
    while peer.transport.now() < until_s:
        opt.zero_grad()
        problem.loss(peer.rank, x).backward()
        peer.transport.sleep(pace_s)
        opt.step()
    return opt, x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_adsgd_ends_at_the_fixed_point_of_dpsgd(run_peers: Any, quadratics: Any, dtype: torch.dtype) -> None:
    problem = quadratics(4)

    def program(peer: Any, algorithm: str, paces: list[float]) -> Any:
        opt, x = train(peer, problem, paces[peer.rank], 120.0, dtype, algorithm=algorithm)
        steps = opt.rounds
        opt.close()
        return steps, x.detach().float().numpy()

    together = run_peers(4, lambda peer: program(peer, "dpsgd", [1.0] * 4))
    apart = run_peers(4, lambda peer: program(peer, "adsgd", [1.0, 6.0, 2.0, 0.5]))
    assert apart[3][0] > 11 * apart[1][0]
    tolerance = 1e-2 if dtype is torch.bfloat16 else 2e-6
    for (_, expected), (_, got) in zip(together, apart, strict=True):
        np.testing.assert_allclose(got, expected, atol=tolerance)


def test_a_merge_and_a_saved_state_go_on_from_what_they_say(run_peers: Any, quadratics: Any) -> None:
    problem = quadratics(3)

    def program(peer: Any) -> None:
        pace_s = [1.0, 3.0, 0.7][peer.rank]
        opt, x = train(peer, problem, pace_s, 30.0, torch.float32, algorithm="adsgd", compressor="int8")
        opt.merge()
        merged, saved = x.detach().clone(), opt.state_dict()
        assert opt.consensus_distance() < 1e-5
        for _ in range(5):
            opt.zero_grad()
            problem.loss(peer.rank, x).backward()
            peer.transport.sleep(pace_s)
            opt.step()
        with torch.no_grad():
            x.copy_(merged)
        opt.load_state_dict(saved)
        assert opt.rounds == saved["gossip"]["rounds"]
        opt.param_groups[0]["lr"] = 0.0
        for _ in range(5):
            opt.step()
            peer.transport.sleep(pace_s)
        opt.close()
        # had a copy from before the state was loaded been mixed in, this would have moved
        torch.testing.assert_close(x.detach(), merged, atol=1e-5, rtol=0)

    run_peers(3, program)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topology": "one-peer-exponential"}, "keeps its neighbours for the whole run"),
        ({"compressor": "topk:fraction=0.01"}, "keeps too little of it"),
        ({"estimate": True}, "no rounds that all ranks share"),
        ({"mixing": "adaptive"}, "no rounds that all ranks share"),
    ],
)
def test_what_cannot_work_is_refused(run_peers: Any, options: dict[str, Any], words: str) -> None:
    def program(peer: Any) -> None:
        x = nn.Parameter(torch.zeros(3))
        with pytest.raises(ConfigError, match=words):
            DecentralizedOptimizer(
                torch.optim.SGD([x], lr=0.1), peer, **{"topology": "ring", "algorithm": "adsgd", **options}
            )

    run_peers(4, program)


def test_a_rank_alone_just_trains(run_peers: Any, quadratics: Any) -> None:
    problem = quadratics(1)

    def program(peer: Any) -> float:
        opt, x = train(peer, problem, 1.0, 100.0, torch.float32, algorithm="adsgd")
        opt.merge()
        return float((x.detach() - torch.from_numpy(problem.b[0])).abs().max())

    assert run_peers(1, program)[0] < 1e-5
