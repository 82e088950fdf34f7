"""One rank of the loop of D-PSGD rounds that ``recover_kills`` takes ranks out of.

Usage, on each of several ranks: recover_rounds.py ELEMENTS FOLDER COMPUTE_MS JITTER_MS LEDGER GRACE. A rank
sleeps COMPUTE_MS before every round in place of a local step, and with JITTER_MS a time with a heavy tail on
top. With LEDGER 1 it runs a node of a ledger, and the optimiser follows the ledger's members. GRACE is the
silence, in seconds or "auto", after which a rank counts as dead.

A board in FOLDER, memory that all ranks and the killer map, holds for every rank its process and the rounds
it has done, and the round to end with. Every rank that ends writes FOLDER/end-RANK.json: moments
(CLOCK_MONOTONIC, seconds) of its rounds' ends, and the first of its rounds without whom: dropped, or no
member with LEDGER.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pydec import DecentralizedOptimizer, compress, gossip, topology
from pydec.consensus.file_storage import create
from pydec.consensus.node import founders, open_node
from pydec.crypto.signing import SigningKey
from pydec.gossip.exchange import Exchange
from pydec.peer import Peer, init
from pydec.train.membership import Membership

BOARD = "board"
PROCESS, ROUNDS, END = range(3)  # rows of the board
PATIENCE_S = 60.0

Round = Callable[[int], set[int]]
"""Does one round, and returns who is not in it."""


def board(folder: Path, size: int) -> NDArray[np.int64]:
    """The board, shape (3, size), int64; made by the killer, with zeros, before the ranks start."""
    path = folder / BOARD
    return np.memmap(path, np.int64, "r+" if path.exists() else "w+", shape=(3, size))


def main(elements: int, folder: Path, compute_s: float, jitter_s: float, ledger: bool, grace: str) -> None:
    """Gossip until the board names the last round."""
    with (
        init(deadline_s=PATIENCE_S, grace=grace) as peer,
        (_on_ledger if ledger else _plain)(peer, elements, folder) as do,
    ):
        rank = peer.rank
        told = board(folder, peer.size)
        random = np.random.default_rng(1000 + rank)
        told[PROCESS, rank] = os.getpid()
        moments: list[float] = []
        first: dict[int, int] = {}
        number = 0
        while not told[END, 0] or number < told[END, 0]:
            peer.check()
            time.sleep(compute_s + jitter_s * random.pareto(1.5))
            gone = do(number)
            moments.append(time.monotonic())
            for other in gone - first.keys():
                first[other] = number
            number += 1
            told[ROUNDS, rank] = number
        if number != told[END, 0]:
            raise AssertionError(f"rank {rank} was told too late to end after {told[END, 0]}, at {number}")
        found = {"moments_s": moments, "gone": {str(other): at for other, at in first.items()}}
        (folder / f"end-{rank}.json").write_text(json.dumps(found))


@contextlib.contextmanager
def _plain(peer: Peer, elements: int, folder: Path) -> Iterator[Round]:
    graph = topology.make("ring", size=peer.size)
    x = np.random.default_rng(peer.rank).standard_normal(elements).astype(np.float32)
    mixer = gossip.make("dpsgd").mixer(x, compress.make("none"), graph.degree)
    exchange = Exchange(peer.transport, graph, [mixer], lost="drop", overlap=False)

    def do(number: int) -> set[int]:
        exchange.run(number)
        return exchange.gone

    yield do
    exchange.flush()
    if not np.isfinite(x).all():
        raise AssertionError("a round mixed what no rank has sent")


@contextlib.contextmanager
def _on_ledger(peer: Peer, elements: int, folder: Path) -> Iterator[Round]:
    keys = [SigningKey(number.to_bytes(32, "big")) for number in range(1, 1 + peer.size)]
    directory = folder / f"rank-{peer.rank}"
    create(directory, founders("bench", [each.public for each in keys]))
    x = torch.nn.Parameter(torch.zeros(elements))
    optimizer = DecentralizedOptimizer(torch.optim.SGD([x], lr=0.0), peer, topology="ring", iid=True)
    with open_node(peer.transport, directory, keys[peer.rank]) as driver:
        follows = Membership(peer, driver, optimizer, PATIENCE_S)

        def do(number: int) -> set[int]:
            x.grad = torch.zeros_like(x)
            optimizer.step()
            return set(range(peer.size)) - {*peer.view.members}

        yield do
        follows.close()
        optimizer.close()


if __name__ == "__main__":
    _elements, _folder, _compute, _jitter, _ledger, _grace = sys.argv[1:]
    main(int(_elements), Path(_folder), 1e-3 * float(_compute), 1e-3 * float(_jitter), _ledger == "1", _grace)
