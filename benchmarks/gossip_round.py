"""One rank of the gossip benchmark: rounds of gossip beside MPI's own Allreduce of the same buffer.

Run by ``suite_gossip`` on every rank: ``gossip_round.py ELEMENTS ROUNDS RESULT.json``. Rank 0 writes
the medians, over the rounds, of the slowest rank's seconds, by contender; for ``auto`` those of rounds
between trials, and beside them what a round costs with the trials' share (``auto, trials included``).
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pydec import compress, gossip, topology
from pydec.comm.mpi import open_mpi
from pydec.gossip.exchange import Exchange
from pydec.gossip.memory import aligned_floats
from pydec.gossip.switch import SwitchedExchange, exchange_of

WARMUP = 1


def main(elements: int, rounds: int, result: Path) -> None:
    """Time every contender in turn, round after round, and check what they computed."""
    transport = open_mpi(deadline_s=120.0)
    from mpi4py import MPI  # after open_mpi, which decides how MPI starts

    world = MPI.COMM_WORLD
    start = np.random.default_rng(transport.rank).standard_normal(elements).astype(np.float32)
    target = float(world.allreduce(float(start.mean(dtype=np.float64)))) / transport.size

    contenders: dict[str, Callable[[], None]] = {}
    vectors: dict[str, np.ndarray] = {}
    for name in ("none", "int8", "auto"):
        graph, part = topology.make("one-peer-exponential", size=transport.size), compress.make(name)
        vectors[name] = aligned_floats(elements)
        vectors[name][:] = start
        mixer = gossip.make("dpsgd").mixer(vectors[name], part, graph.degree)
        exchange = exchange_of([mixer])(transport, graph, [mixer], overlap=False)
        contenders[name] = _round(exchange)
    assert isinstance(exchange, SwitchedExchange)  # the last is auto's
    switch = exchange.switch
    total = aligned_floats(elements)

    def allreduce() -> None:
        world.Allreduce(start, total)

    contenders["Allreduce"] = allreduce
    contenders["Sendrecv + average"] = _pair(world, start.copy(), transport.rank, transport.size)

    def timed(name: str) -> float:
        world.Barrier()
        began = time.perf_counter()
        contenders[name]()
        return float(world.allreduce(time.perf_counter() - began, MPI.MAX))

    trials_s = sum(timed("auto") for _ in range(switch.trial))  # decides, before it is compared
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for current in range(WARMUP + rounds):
        for name in list(contenders) if current % 2 else reversed(list(contenders)):
            slowest = timed(name)
            if current >= WARMUP:
                seconds[name].append(slowest)
    for name, vector in vectors.items():
        mean = float(world.allreduce(float(vector.mean(dtype=np.float64)))) / transport.size
        if abs(mean - target) > 1e-5 or np.abs(vector).max() > np.abs(start).max() * 2:
            raise AssertionError(f"{name} moved the mean from {target} to {mean}")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    shared = (trials_s + medians["auto"] * (switch.every - switch.trial)) / switch.every
    packed = world.allreduce(int(switch.packed))
    if transport.rank == 0:
        found = {**medians, "auto, trials included": shared, "ranks that compress": packed}
        result.write_text(json.dumps(found))
    transport.close()


def _round(exchange: Exchange) -> Callable[[], None]:
    def once() -> None:
        exchange.run(exchange.round + 1)
        exchange.flush()

    return once


def _pair(world: object, x: np.ndarray, rank: int, size: int) -> Callable[[], None]:
    """The plainest exchange there is: one Sendrecv with a partner, then the average in NumPy."""
    arrived, partner = np.empty_like(x), rank ^ 1
    if partner >= size:
        partner = rank

    def once() -> None:
        world.Sendrecv(x, partner, 0, arrived, partner, 0)  # type: ignore[attr-defined]  # an Intracomm
        np.add(x, arrived, out=x)
        np.multiply(x, np.float32(0.5), out=x)

    return once


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
