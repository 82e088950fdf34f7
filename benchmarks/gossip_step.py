"""One rank of the step timing in suite_gossip: a training step by every method, block after block in turn.

Usage, on each of several ranks: gossip_step.py WIDTH ROUNDS STEPS FILE. Every contender trains its own copy
of one model (ten dense layers, 10 M parameters at a width of 1000) on the same batches, which differ between
ranks. Ranks meet before every block and the first step of a block is not counted. Rank 0 writes the median
step of the slowest rank of each to FILE, in seconds, and why others are left out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import pydec
from pydec.cli import bench
from pydec.peer import Peer
from pydec.train.determinism import reproducible
from pydec.train.together import table

racers = bench.load("netlab.racers")

BATCH, LAYERS, WARMUP = 16, 10, 1
OURS = {"topology": "one-peer-exponential", "algorithm": "dpsgd:order=cta"}
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DDP over gloo": ("ddp", {}),
    "decent-dp, one-peer-exp": ("decent-dp", {"topology": "one-peer-exp"}),
    "decent-dp, alternating-exp-ring": (
        "decent-dp",
        {"topology": "alternating-exp-ring", "ranks_per_host": 2},
    ),
    "hivemind": ("hivemind", {"period": 1, "compression": "none"}),
}
ALONE, BARE = "alone", "Sendrecv + average"


def model(width: int) -> nn.Module:
    """Dense layers, the same on all ranks."""
    torch.manual_seed(1)
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(*layers)


def sgd(module: nn.Module) -> torch.optim.Optimizer:
    """What every contender steps with."""
    return torch.optim.SGD(module.parameters(), lr=0.01)


class Alone:
    """The same step without a word to anybody."""

    def __init__(self, net: nn.Module) -> None:
        self.model = net
        self._optimizer = sgd(net)

    def step(self) -> None:
        """Use the gradients."""
        self._optimizer.step()
        self._optimizer.zero_grad()


class Bare(Alone):
    """The least that an average with one peer costs: Sendrecv of the parameters as one vector, and the mean.

    The partner is that of the one-peer exponential graph's pairs: the rank's number with one bit turned.
    """

    def __init__(self, net: nn.Module, peer: Peer) -> None:
        from mpi4py import MPI

        super().__init__(net)
        parameters = list(net.parameters())
        self._x = np.empty(sum(p.numel() for p in parameters), np.float32)
        flat, start = torch.from_numpy(self._x), 0
        for p in parameters:
            part = flat[start : start + p.numel()].view_as(p)
            part.copy_(p.detach())
            p.data, start = part, start + p.numel()
        self._arrived = np.empty_like(self._x)
        self._world, self._rank = MPI.COMM_WORLD, peer.rank
        self._bits, self._round = [1 << bit for bit in range(peer.size.bit_length() - 1)], 0

    def step(self) -> None:
        """Use the gradients, exchange the models and take the mean of the two."""
        super().step()
        partner = self._rank ^ self._bits[self._round % len(self._bits)]
        self._round += 1
        self._world.Sendrecv(self._x, partner, 0, self._arrived, partner, 0)
        np.add(self._x, self._arrived, out=self._x)
        np.multiply(self._x, np.float32(0.5), out=self._x)


def contenders(peer: Peer, width: int) -> tuple[dict[str, Any], dict[str, str]]:
    """All that can run here, by name, and why the others cannot."""
    made: dict[str, Any] = {ALONE: Alone(model(width)), BARE: Bare(model(width), peer)}
    for code in ("none", "int8"):
        made[code] = racers.Ours(model(width), sgd, peer, {**OURS, "compressor": code, "iid": True})
    racers.start_gloo()
    left_out = {}
    for name, (method, options) in PEERS.items():
        reason = racers.unavailable(method)
        if reason is None:
            made[name] = racers.PEERS[method](model(width), sgd, **options)
        else:
            left_out[name] = reason
    return made, left_out


def main(width: int, rounds: int, steps: int, file: Path) -> None:
    """Time all and write the result."""
    with reproducible(threads=1), pydec.init(seed=1, deadline_s=300.0) as peer:
        made, left_out = contenders(peer, width)
        random = torch.Generator().manual_seed(peer.rank)
        x, y = (torch.randn(BATCH, width, generator=random) for _ in range(2))
        seconds: dict[str, list[float]] = {name: [] for name in made}
        for current in range(WARMUP + rounds):
            for name in list(made) if current % 2 else reversed(made):
                took = _block(made[name], x, y, steps, lambda: table(peer, [0.0]))
                slowest = float(table(peer, [took]).max())
                if current >= WARMUP:
                    seconds[name].append(slowest)
        _check(peer, made)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        if peer.rank == 0:
            parameters = sum(p.numel() for p in made[ALONE].model.parameters())
            found = {"seconds": medians, "left_out": left_out, "parameters": parameters}
            file.write_text(json.dumps(found))
        for name in PEERS.keys() & made.keys():
            made[name].close()


def _block(racer: Any, x: torch.Tensor, y: torch.Tensor, steps: int, meet: Callable[[], object]) -> float:
    """Seconds per step of a block, the first left out."""
    meet()
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            began = time.perf_counter()
        loss = nn.functional.mse_loss(racer.model(x), y, reduction="sum") / BATCH
        loss.backward()
        racer.step()
    took = time.perf_counter() - began
    if isinstance(racer, racers.Ours):
        racer.close()  # what is under way runs beside nobody else's block
    return took / steps


def _check(peer: Peer, made: dict[str, Any]) -> None:
    """Every method must hold the ranks together, beside what they drift apart alone; looks at the last bias.

    Raises:
        AssertionError: one does not average what it says.
    """
    apart = {}
    for name, racer in made.items():
        *_, bias = racer.model.parameters()
        found = table(peer, bias.detach()[:64].tolist())
        apart[name] = float(np.linalg.norm(found - found.mean(axis=0)))
    for name, distance in apart.items():
        if name != ALONE and not distance < 0.8 * apart[ALONE]:
            raise AssertionError(f"{name}: ranks are {distance:g} apart; alone they are {apart[ALONE]:g}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
