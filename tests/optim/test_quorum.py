"""Weights for work done: against the equation, with ranks that skip steps, come late or send nonsense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pydec import DecentralizedOptimizer, compress, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.errors import ConfigError, FrameError
from pydec.gossip.exchange import Exchange
from pydec.gossip.quorum import QuorumMixer

N = 3000


def start(size: int) -> Any:
    return np.random.default_rng(size).standard_normal((size, N)).astype(np.float32)


@pytest.mark.parametrize("compressor", ["none", "int8"])
@pytest.mark.parametrize("merits", [[1.0, 1.0, 1.0, 1.0], [4.0, 1.0, 0.0, 2.5], [0.0] * 4])
def test_a_round_is_the_weighted_mean_of_who_is_there(compressor: str, merits: list[float]) -> None:
    x, graph = start(4), topology.make("ring", size=4)

    def program(transport: Transport) -> Any:
        mine = x[transport.rank].copy()
        mixer = QuorumMixer(mine, compress.make(compressor), graph.degree)
        mixer.merit = merits[transport.rank]
        exchange = Exchange(transport, graph, [mixer])
        exchange.run(0)
        exchange.flush()
        return mine

    got = np.stack(LocalCluster(4).run(program))
    c = np.array(merits) if sum(merits) else np.ones(4)
    weights = graph.weights(0) * c
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(got, weights @ x, atol=2e-6 if compressor == "none" else 0.03)


def test_an_absent_rank_counts_for_nothing_and_nobody_waits_for_it() -> None:
    x, graph = start(3), topology.make("complete", size=3)

    def program(transport: Transport) -> Any:
        if transport.rank == 2:
            transport.sleep(100.0)  # type: ignore[attr-defined]  # a LocalTransport
            return x[2]
        mine = x[transport.rank].copy()
        mixer = QuorumMixer(mine, compress.make("none"), graph.degree)
        mixer.merit = 1.0 + 2.0 * transport.rank
        exchange = Exchange(transport, graph, [mixer], late="drop")
        exchange.run(0)
        exchange.close()
        return mine

    got = LocalCluster(3, deadline_s=1.0).run(program)
    # The weight of the absent rank returns to whoever misses it: 2/3 own, 1/3 other.
    np.testing.assert_allclose(got[0], (2 / 3 * 1 * x[0] + 1 / 3 * 3 * x[1]) / (2 / 3 + 1), atol=1e-6)
    np.testing.assert_allclose(got[1], (1 / 3 * 1 * x[0] + 2 / 3 * 3 * x[1]) / (1 / 3 + 2), atol=1e-6)


def test_work_is_samples_squared_over_steps(run_peers: Any) -> None:
    def program(peer: Any) -> list[float]:
        x = nn.Parameter(torch.zeros(4))
        opt = DecentralizedOptimizer(
            torch.optim.SGD([x], lr=0.1),
            peer,
            algorithm="quorum-diloco",
            topology="ring",
            local_steps=4,
            nan_policy="skip",
        )
        merits = []
        for step in range(8):
            opt.count(10.0 * (1 + peer.rank))
            x.grad = torch.full((4,), float("nan") if peer.rank == 1 and step in (1, 2) else 1.0)
            opt.step()
            assert opt._rounds is not None
            merits.append(opt._rounds.parts[0].rule.mixers[0].merit)  # type: ignore[attr-defined]
        opt.close()
        with pytest.raises(ConfigError, match="samples must be positive and finite, got 0"):
            opt.count(0)
        return merits[3::4]

    first, second, third = run_peers(3, program)
    assert first == [400.0, 400.0]  # 40^2 / 4
    assert second == [800.0, 1600.0]  # 40^2 / 2, then 80^2 / 4
    assert third == [3600.0, 3600.0]


def test_equal_work_is_gossip_diloco(paths: Any, quadratics: Any) -> None:
    options = {"topology": "ring", "local_steps": 3}
    ours, theirs = (
        paths(5, quadratics(5), [0.05] * 30, algorithm=name, **options)
        for name in ("quorum-diloco", "gossip-diloco")
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), 2.0**101])
def test_weights_that_nobody_has_are_refused(weight: float) -> None:
    mixer = QuorumMixer(np.zeros(8, np.float32), compress.make("none"), 1)
    packet = np.zeros(mixer.capacity(0), np.uint8)
    packet = packet[: mixer.encode(0, packet)]
    assert mixer.decodes(0, packet)
    packet[:8] = np.frombuffer(np.float64(weight).tobytes(), np.uint8)
    assert not mixer.decodes(0, packet)
    with pytest.raises(FrameError, match="weight must be in"):
        mixer.absorb(0, packet, [packet], [0.5])
