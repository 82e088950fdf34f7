"""One rank of the suite ``consensus``: commits one transaction after another, then keeps silent.

Started with pydec run: consensus_node.py FOLDER COMMITS SILENCE_S. Every rank has a ledger in FOLDER; rank 0
writes FOLDER/found.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from pydec.comm.agree import agree
from pydec.comm.collect import ring_mean
from pydec.comm.transport import Stream
from pydec.consensus.file_storage import BLOCKS, create
from pydec.consensus.node import founders, open_node
from pydec.consensus.transactions import Beacon, sign
from pydec.crypto.signing import SigningKey
from pydec.peer import init

WARM_UP = 10


def main(folder: Path, commits: int, silence_s: float) -> None:
    import numpy as np

    with init() as peer:
        keys = [SigningKey(number.to_bytes(32, "big")) for number in range(1, 1 + peer.size)]
        key, directory = keys[peer.rank], folder / f"rank-{peer.rank}"
        create(directory, founders("bench", [each.public for each in keys]))
        with open_node(peer.transport, directory, key) as node:
            agree(peer.transport, {})
            latencies_s, cpu_s = [], 0.0
            for number in range(WARM_UP + commits):
                if number == WARM_UP:
                    cpu_s = time.process_time()
                if peer.rank == 0:
                    account = node.state.accounts[key.public]
                    beacon = sign(key, node.state.chain_id, account.sequence, Beacon(number + 1))
                    began_s = time.perf_counter()
                    node.submit(beacon).result(120.0)
                    latencies_s.append(time.perf_counter() - began_s)
                while node.head[0] <= number:  # the others' programs do nothing
                    time.sleep(0.02)
            cpu_s = time.process_time() - cpu_s
            agree(peer.transport, {})
            time.sleep(1.0)  # what is under way ends
            link = peer.transport.stream(Stream.LEDGER)
            before, idle_cpu_s = link.bytes_sent, time.process_time()
            time.sleep(silence_s)
            sent, idle_cpu_s = link.bytes_sent - before, time.process_time() - idle_cpu_s
            figures = np.array([sent, idle_cpu_s / silence_s, cpu_s / commits])
            ring_mean(peer.transport, figures)
            if peer.rank == 0:
                found = {
                    "latencies_s": latencies_s[WARM_UP:],
                    "idle_bytes": float(figures[0]) * peer.size,
                    "idle_cpu": float(figures[1]),
                    "cpu_s": float(figures[2]),
                    "ledger_bytes": (directory / BLOCKS).stat().st_size / node.head[0],
                    "sync_s": sync_s(folder),
                }
                (folder / "found.json").write_text(json.dumps(found))
            agree(peer.transport, {})


def sync_s(folder: Path) -> float:
    """Median time of an append of 512 bytes with fdatasync here, as one node does it."""
    descriptor = os.open(folder / "sync", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    taken = []
    for _ in range(100):
        began_s = time.perf_counter()
        os.write(descriptor, bytes(512))
        os.fdatasync(descriptor)
        taken.append(time.perf_counter() - began_s)
    os.close(descriptor)
    return sorted(taken)[len(taken) // 2]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
