"""A whole step of gossip with a model on a GPU: averaged there, beside averaged in host memory.

Two ranks of a local cluster share the GPU and take turns, so a time is that of both; their packets are copied
in host memory, which stands for a network of its speed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from pydec import DecentralizedOptimizer
from pydec.comm.agree import agree
from pydec.comm.local import LocalCluster
from pydec.comm.view import View

from .harness import Row

ELEMENTS = 1 << 26  # 256 MiB of float32, a model of 67 million parameters
WARMUP = 2
CASES = (
    ("dpsgd:order=atc", "none"),
    ("dpsgd:order=atc", "int8"),
    ("choco", "int8"),
    ("choco", "topk:fraction=0.01"),
)


class _Peer:
    """What an optimiser needs of a peer."""

    def __init__(self, transport: Any) -> None:
        self.transport, self.rank, self.size = transport, transport.rank, transport.size
        self.view = View(0, tuple(range(self.size)), seed=7)

    def check(self) -> None:
        """Nobody stops a benchmark."""

    def agree(self, facts: Any) -> None:
        """As the real peer."""
        agree(self.transport, facts)


def rows(n: int, rounds: int) -> Iterator[Row]:
    """One row for each case; where both ways do not give the same bits, AssertionError.

    Args:
        n: parameters.
        rounds: timed rounds.
    """
    for algorithm, compressor in CASES:
        theirs, expected = timed(algorithm, compressor, n, rounds, "cpu", "cuda")
        ours, found = timed(algorithm, compressor, n, rounds, "cuda", "cuda")
        np.testing.assert_array_equal(found, expected)
        facts = {"n": n, "ranks": 2, "gpu": torch.cuda.get_device_name(), "rounds": rounds}
        name = f"gossip round, {algorithm} {compressor}"
        yield Row("cuda", name, facts, ours, "ms", "the same in host memory", theirs, theirs / ours)


def timed(
    algorithm: str, compressor: str, n: int, rounds: int, gossip_device: Any, home: str
) -> tuple[float, np.ndarray]:
    """Median milliseconds of a step of both ranks, and rank 0's first million parameters after all.

    Args:
        algorithm, compressor: specifications.
        n: parameters.
        rounds: timed rounds.
        gossip_device: see ``DecentralizedOptimizer``; a function makes a ``Place`` for each rank.
        home: device of the parameters.
    """

    def program(transport: Any) -> tuple[list[float], np.ndarray]:
        random = torch.Generator(home).manual_seed(transport.rank)
        x = nn.Parameter(torch.randn(n, device=home, generator=random))
        x.grad = torch.zeros_like(x)
        sgd = torch.optim.SGD([x], lr=0.0)
        device = gossip_device() if callable(gossip_device) else gossip_device
        opt = DecentralizedOptimizer(
            sgd,
            _Peer(transport),
            topology="ring",
            algorithm=algorithm,
            compressor=compressor,
            init="keep",
            iid=True,
            gossip_device=device,
        )
        seconds = []
        for _ in range(WARMUP + rounds):
            began = time.perf_counter()
            opt.step()
            if home != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        opt.close()
        return seconds[WARMUP:], x.detach()[: 1 << 20].cpu().numpy()

    results = LocalCluster(2).run(program)
    return 1e3 * statistics.median(results[0][0]), results[0][1]
