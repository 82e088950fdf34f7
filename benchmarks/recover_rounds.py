"""One rank of the loop of D-PSGD rounds that ``recover_kills`` takes ranks out of.

Usage, on each of several ranks: recover_rounds.py ELEMENTS FOLDER JITTER_MS. A board in FOLDER, memory that
all ranks and the killer map, holds for every rank its process, the rounds it has done and when it had done
the last one, and the round to end with. Every rank that ends writes FOLDER/end-RANK.json: moments
(CLOCK_MONOTONIC, seconds) of its rounds' ends, the first of its rounds without somebody, who that is, and
how many packets it has left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydec import compress, gossip, topology
from pydec.comm.mpi import open_mpi
from pydec.gossip.exchange import Exchange

COMPUTE_S = 1e-3  # stands for a local step; without it, a small round is all waking up
BOARD = "board"
PROCESS, ROUNDS, LAST, END = range(4)  # rows of the board; LAST in nanoseconds


def board(folder: Path, size: int) -> NDArray[np.int64]:
    """The board, shape (4, size), int64; made by the killer, with zeros, before the ranks start."""
    path = folder / BOARD
    return np.memmap(path, np.int64, "r+" if path.exists() else "w+", shape=(4, size))


def main(elements: int, folder: Path, jitter_ms: float) -> None:
    """Gossip until the board names the last round."""
    transport = open_mpi(deadline_s=60.0)
    rank, size = transport.rank, transport.size
    told = board(folder, size)
    graph = topology.make("ring", size=size)
    x = np.random.default_rng(rank).standard_normal(elements).astype(np.float32)
    mixer = gossip.make("dpsgd").mixer(x, compress.make("none"), graph.degree)
    exchange = Exchange(transport, graph, [mixer], lost="drop", overlap=False)
    random = np.random.default_rng(1000 + rank)
    told[PROCESS, rank] = os.getpid()
    moments: list[float] = []
    gone: dict[int, int] = {}
    number = 0
    while not told[END, 0] or number < told[END, 0]:
        time.sleep(COMPUTE_S + 1e-3 * jitter_ms * random.pareto(1.5))
        exchange.run(number)
        now_s = time.monotonic()
        moments.append(now_s)
        number += 1
        for peer in exchange.gone - gone.keys():
            gone[peer] = number - 1
        told[LAST, rank] = round(1e9 * now_s)
        told[ROUNDS, rank] = number
    if number != told[END, 0]:
        raise AssertionError(f"rank {rank} was told too late to end with round {told[END, 0]}, at {number}")
    exchange.flush()
    if not np.isfinite(x).all():
        raise AssertionError("a round mixed what no rank has sent")
    found = {"moments_s": moments, "gone": {str(peer): at for peer, at in gone.items()}}
    (folder / f"end-{rank}.json").write_text(json.dumps({**found, "dropped": exchange.dropped}))
    transport.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
