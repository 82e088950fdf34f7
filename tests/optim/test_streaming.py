"""Streaming DiLoCo against its equations: fragments in turn, under way for a window, then blended in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pydec import DecentralizedOptimizer, topology
from pydec.comm.local import LocalCluster, LocalTransport

Matrix = NDArray[np.float64]
D, PADDED = 6, 16
LR, MU, ETA = 0.4, 0.9, 0.05


def simulated(problem: Any, w: Any, steps: int, h: int, fragments: int, keep: float) -> Matrix:
    """The class's equations on padded vectors, one rank's row after the other."""
    size = len(problem.b)
    x, anchor, m = (np.zeros((size, PADDED)) for _ in range(3))
    length = -(-PADDED // fragments)
    parts = [slice(start, min(start + length, PADDED)) for start in range(0, PADDED, length)]
    flying: tuple[slice, Matrix] | None = None
    departed, path = 0, []
    for step in range(1, steps + 1):
        x[:, :D] -= ETA * problem.gradient(x[:, :D])
        if step % h == 0:
            if flying is not None:
                part, z = flying
                anchor[:, part] = w(departed - 1) @ z
                x[:, part] = keep * x[:, part] + (1 - keep) * anchor[:, part]
            part = parts[departed % len(parts)]
            d = anchor[:, part] - x[:, part]
            m[:, part] = MU * m[:, part] + d
            flying = part, anchor[:, part] - LR * (d + MU * m[:, part])
            departed += 1
        path.append(x[:, :D].copy())
    return np.stack(path)


@pytest.mark.parametrize("graph", ["ring", "base-k:k=1"])
@pytest.mark.parametrize(("fragments", "keep"), [(1, 0.5), (4, 0.5), (5, 0.0)])
def test_it_is_its_equations(paths: Any, quadratics: Any, graph: str, fragments: int, keep: float) -> None:
    size, h, steps, problem = 5, 3, 60, quadratics(5)
    algorithm = f"streaming-diloco:fragments={fragments},keep={keep}"
    got = paths(size, problem, [ETA] * steps, algorithm=algorithm, topology=graph, local_steps=h)
    schedule = topology.make(graph, size=size)
    np.testing.assert_allclose(
        got, simulated(problem, schedule.weights, steps, h, fragments, keep), atol=1e-5
    )


@pytest.mark.parametrize("compressor", ["none", "auto"])
def test_packets_that_move_in_the_background_change_no_bit(
    paths: Any, quadratics: Any, compressor: str
) -> None:
    options = {
        "algorithm": "streaming-diloco",
        "topology": "ring",
        "local_steps": 2,
        "compressor": compressor,
    }
    ours, theirs = (
        paths(4, quadratics(4), [ETA] * 20, background=moved, **options) for moved in (False, True)
    )
    np.testing.assert_array_equal(ours, theirs)


def test_a_round_sends_one_fragment(run_peers: Any) -> None:
    def sent(peer: Any, fragments: int) -> int:
        x = nn.Parameter(torch.zeros(40_000))
        algorithm = f"streaming-diloco:fragments={fragments}"
        opt = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.1), peer, algorithm=algorithm)
        before = peer.transport.bytes_sent
        for _ in range(2):
            opt.step()
        opt.close()
        return int(peer.transport.bytes_sent - before)

    whole, quarter = (run_peers(2, lambda peer, n=n: sent(peer, n))[0] for n in (1, 4))
    assert 4 * 40_000 * 2 < whole < 4 * 40_000 * 2 + 1000
    assert 4 * 10_000 * 2 < quarter < 4 * 10_000 * 2 + 1000


@pytest.mark.parametrize("resume_at", [4, 5, 6])
def test_a_run_resumed_with_a_fragment_under_way_has_the_bits_of_an_undisturbed_one(
    run_peers: Callable[..., list[Any]], quadratics: Any, resume_at: int
) -> None:
    problem = quadratics(4)

    def program(peer: Any, at: int) -> Any:
        def make() -> tuple[nn.Parameter, DecentralizedOptimizer]:
            x = nn.Parameter(torch.zeros(D))
            sgd = torch.optim.SGD([x], lr=0.1)
            algorithm = "streaming-diloco:fragments=3"
            return x, DecentralizedOptimizer(sgd, peer, algorithm=algorithm, topology="ring", local_steps=2)

        x, opt = make()
        for step in range(11):
            if step == at:
                saved, model = copy.deepcopy(opt.state_dict()), x.detach().clone()
                opt.close()
                x, opt = make()
                with torch.no_grad():
                    x.copy_(model)
                opt.load_state_dict(saved)
            opt.zero_grad()
            problem.loss(peer.rank, x).backward()
            opt.step()
        opt.close()
        return x.detach().numpy().copy()

    whole, resumed = (run_peers(4, lambda peer, at=at: program(peer, at)) for at in (-1, resume_at))
    np.testing.assert_array_equal(whole, resumed)


def test_packets_travel_while_a_window_is_computed(peer_of: Any) -> None:
    """Nobody waits where a window takes longer than a message."""

    def program(transport: LocalTransport) -> float:
        x = nn.Parameter(torch.zeros(2000))
        sgd, algorithm = torch.optim.SGD([x], lr=0.1), "streaming-diloco:fragments=2"
        opt = DecentralizedOptimizer(sgd, peer_of(transport), algorithm=algorithm, local_steps=4)
        for _ in range(20):
            transport.sleep(0.5)
            opt.step()
        waited = opt.wait_s
        opt.close()
        return waited

    assert max(LocalCluster(2, delay_s=1.5).run(program)) == 0.0
