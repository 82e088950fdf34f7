"""One rank of the slow-rank comparison in suite_train: samples per second with one rank 4 times slower.

Usage, on each of several ranks: paces.py SECONDS FILE. A step is a real forward and backward pass of a small
model and a pause, which stands for an accelerator that computes while the processor is free; on the
last rank it takes ``SLOWER`` times as long. First every rank trains alone, all at the same time; then by each
method for as long: synchronous ones until the time is over on rank 0 (asking it, one byte down a tree, is a
part of their step), asynchronous ones until it is over on each. Rank 0 writes samples per second, by method
and rank, to FILE.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import pydec
from pydec.comm.collect import broadcast
from pydec.peer import Peer
from pydec.train.determinism import reproducible
from pydec.train.together import table

BATCH, WIDTH = 32, 256
PAUSE_S, SLOWER = 0.03, 4
METHODS = {
    "adsgd": {"algorithm": "adsgd", "topology": "ring"},
    "ad-psgd": {"algorithm": "ad-psgd", "topology": "ring"},
    "dpsgd": {"algorithm": "dpsgd", "topology": "one-peer-exponential"},
    "allreduce": {"algorithm": "allreduce"},
}


def model() -> nn.Module:
    """About a million parameters, the same on all ranks."""
    torch.manual_seed(1)
    layers = [part for _ in range(16) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(WIDTH, 10))


def stepper(net: nn.Module, optimizer: torch.optim.Optimizer, rank: int, slow: bool) -> Callable[[], None]:
    """A function that takes one step."""
    random = torch.Generator().manual_seed(rank)
    x, y = torch.randn(BATCH, WIDTH, generator=random), torch.randint(10, (BATCH,), generator=random)

    def step() -> None:
        began = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        time.sleep(PAUSE_S)
        if slow:
            time.sleep((SLOWER - 1) * (time.perf_counter() - began))
        optimizer.step()

    return step


def count(step: Callable[[], None], seconds: float, go_on: Callable[[bool], bool]) -> tuple[int, float]:
    """Steps until ``go_on`` says no, and how long they took."""
    began, steps = time.perf_counter(), 0
    while go_on(time.perf_counter() - began < seconds):
        step()
        steps += 1
    return steps, time.perf_counter() - began


def together(peer: Peer) -> Callable[[bool], bool]:
    """Rank 0's word for all: synchronous ranks must take equally many steps."""
    word = np.zeros(1, np.uint8)

    def ask(mine: bool) -> bool:
        word[0] = mine
        broadcast(peer.transport, word)
        return bool(word[0])

    return ask


def main(seconds: float, file: Path) -> None:
    """Measure every method and write the result."""
    with reproducible(threads=1), pydec.init(seed=1) as peer:
        slow = peer.rank == peer.size - 1
        found: dict[str, list[float]] = {}

        def measure(name: str, net: nn.Module, optimizer: torch.optim.Optimizer, own_pace: bool) -> None:
            step = stepper(net, optimizer, peer.rank, slow)
            step()
            table(peer, [0.0])  # all ranks start together
            steps, took = count(step, seconds, (lambda more: more) if own_pace else together(peer))
            if hasattr(optimizer, "close"):
                optimizer.close()
            if not all(torch.isfinite(p).all() for p in net.parameters()):
                raise AssertionError(f"{name} diverged on rank {peer.rank}")
            found[name] = table(peer, [BATCH * steps / took])[:, 0].tolist()

        net = model()
        measure("alone", net, torch.optim.SGD(net.parameters(), lr=0.01), own_pace=True)
        for name, options in METHODS.items():
            net = model()
            sgd = torch.optim.SGD(net.parameters(), lr=0.01)
            gossip = pydec.DecentralizedOptimizer(sgd, peer, model=net, iid=True, **options)
            measure(name, net, gossip, own_pace=gossip.algorithm.asynchronous)
        ddp(peer, file, measure)
        if peer.rank == 0:
            file.write_text(json.dumps(found))


def ddp(peer: Peer, file: Path, measure: Callable[..., None]) -> None:
    """The same by torch's DistributedDataParallel over gloo."""
    import torch.distributed as dist

    store = file.with_suffix(".store")
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=peer.rank, world_size=peer.size)
    net = nn.parallel.DistributedDataParallel(model())
    measure("DDP over gloo", net, torch.optim.SGD(net.parameters(), lr=0.01), own_pace=False)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
