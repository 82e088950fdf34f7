"""One rank of the benchmark of sealed gossip: rounds over the same MPI, sealed and plain in turn.

Run by ``suite_secure`` on every rank: ``secure_round.py ELEMENTS ROUNDS RESULT.json``. Rank 0 writes the
medians, over the rounds, of the slowest rank's seconds, and the number of the cipher suite.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from pydec import compress, gossip, topology
from pydec.comm.identity import fresh
from pydec.comm.meet import seal
from pydec.comm.mpi import open_mpi
from pydec.comm.transport import Transport
from pydec.gossip.exchange import Exchange
from pydec.gossip.memory import aligned_floats

WARMUP = 1


def main(elements: int, rounds: int, result: Path) -> None:
    """Time both in turn, round after round, and check that they computed the same."""
    plain = open_mpi(deadline_s=120.0)
    from mpi4py import MPI  # after open_mpi, which decides how MPI starts

    world = MPI.COMM_WORLD
    start = np.random.default_rng(plain.rank).standard_normal(elements).astype(np.float32)
    sealed = seal(plain, fresh())
    links: dict[str, Transport] = {"plain": plain, "sealed": sealed}
    vectors = {name: aligned_floats(elements) for name in links}
    exchanges = {}
    for name, link in links.items():
        vectors[name][:] = start
        graph = topology.make("one-peer-exponential", size=plain.size)
        mixer = gossip.make("dpsgd").mixer(vectors[name], compress.make("none"), graph.degree)
        exchanges[name] = Exchange(link, graph, [mixer], overlap=False)
    seconds: dict[str, list[float]] = {name: [] for name in links}
    for current in range(WARMUP + rounds):
        for name in list(links) if current % 2 else reversed(list(links)):
            world.Barrier()
            began = time.perf_counter()
            exchanges[name].run(exchanges[name].round + 1)
            exchanges[name].flush()
            slowest = float(world.allreduce(time.perf_counter() - began, MPI.MAX))
            if current >= WARMUP:
                seconds[name].append(slowest)
    if not np.array_equal(vectors["plain"], vectors["sealed"]):
        raise AssertionError("sealed rounds gave other bits than plain ones")
    if plain.rank == 0:
        found: dict[str, float] = {name: statistics.median(times) for name, times in seconds.items()}
        result.write_text(json.dumps({**found, "suite": int(next(iter(sealed.sessions.suites.values())))}))
    for exchange in exchanges.values():
        exchange.close()
    sealed.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
