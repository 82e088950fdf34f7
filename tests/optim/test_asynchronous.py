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


@pytest.mark.parametrize("algorithm", ["adsgd", "ad-psgd", "ad-psgd:a2cid2=true"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merge_and_a_saved_state_go_on_from_what_they_say(
    run_peers: Any, quadratics: Any, algorithm: str, dtype: torch.dtype
) -> None:
    problem = quadratics(4)

    def program(peer: Any) -> None:
        pace_s = [1.0, 3.0, 0.7, 1.0][peer.rank]
        opt, x = train(peer, problem, pace_s, 20.0, dtype, algorithm=algorithm, compressor="int8")
        opt.merge()
        merged, saved = x.detach().clone(), opt.state_dict()
        assert opt.consensus_distance() < (1e-5 if dtype is torch.float32 else 0.05)
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
        torch.testing.assert_close(x.detach(), merged, atol=1e-5 if dtype is torch.float32 else 0.05, rtol=0)

    run_peers(4, program)


@pytest.mark.parametrize("algorithm", ["ad-psgd", "ad-psgd:a2cid2=true"])
def test_ad_psgd_keeps_the_mean_of_all_local_steps(run_peers: Any, quadratics: Any, algorithm: str) -> None:
    """With momentum, that of the models and their companions together."""
    problem = quadratics(4)

    def program(peer: Any) -> Any:
        x = nn.Parameter(torch.zeros(6))
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.1, momentum=0.5), peer, topology="ring", algorithm=algorithm
        )
        moved = np.zeros(6)

        def note(sign: float) -> None:
            moved[:] += sign * x.detach().numpy()

        opt.optimizer.register_step_pre_hook(lambda *_: note(-1.0))
        opt.optimizer.register_step_post_hook(lambda *_: note(1.0))
        while peer.transport.now() < 30.0:
            opt.zero_grad()
            problem.loss(peer.rank, x).backward()
            peer.transport.sleep([1.0, 4.0, 0.7, 2.0][peer.rank])
            opt.step()
        opt.close()
        model = x.detach().numpy().astype(np.float64)
        companion = opt.state_dict()["gossip"]["vectors"].get("0.tilde", x.detach())
        return moved, (model + companion.numpy()[:6]) / 2

    moved, ends = zip(*run_peers(4, program), strict=True)
    np.testing.assert_allclose(np.mean(ends, axis=0), np.mean(moved, axis=0), atol=1e-5)
    assert np.abs(np.mean(ends, axis=0)).max() > 0.01


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"topology": "one-peer-exponential"}, "keeps its neighbours for the whole run"),
        ({"compressor": "topk:fraction=0.01"}, "keeps too little of it"),
        ({"estimate": True}, "no rounds that all ranks share"),
        ({"mixing": "adaptive"}, "no rounds that all ranks share"),
        ({"algorithm": "ad-psgd", "topology": "exponential"}, "needs a symmetric graph"),
        ({"algorithm": "dpsgd:order=atc", "background": True}, "background=True moves packets while"),
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


@pytest.mark.parametrize("algorithm", ["adsgd", "ad-psgd:a2cid2=true"])
def test_a_rank_alone_just_trains(run_peers: Any, quadratics: Any, algorithm: str) -> None:
    problem = quadratics(1)

    def program(peer: Any) -> float:
        opt, x = train(peer, problem, 1.0, 100.0, torch.float32, algorithm=algorithm)
        opt.merge()
        return float((x.detach() - torch.from_numpy(problem.b[0])).abs().max())

    assert run_peers(1, program)[0] < 1e-5
