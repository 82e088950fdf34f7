"""One replica of torchft that averages a vector, round after round, for ``recover_peers``.

Usage: recover_torchft.py NUMBER ELEMENTS FOLDER LIGHTHOUSE HEARTBEAT_MS. It sleeps a millisecond before
every round, as ``recover_rounds`` does, and appends to FOLDER/moments-NUMBER, for every round that is
committed, the moment (CLOCK_MONOTONIC, seconds) and how many replicas took part. It ends when it is killed.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torchft import Manager, ProcessGroupGloo

PATIENCE = timedelta(seconds=30)


def main(number: int, elements: int, folder: Path, lighthouse: str, heartbeat_ms: int) -> None:
    """Average until killed."""
    torch.set_num_threads(1)
    state = {"x": torch.full((elements,), float(number))}
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    manager = Manager(
        pg=ProcessGroupGloo(timeout=PATIENCE),
        load_state_dict=state.update,
        state_dict=lambda: dict(state),
        min_replica_size=1,
        timeout=PATIENCE,
        heartbeat_interval=timedelta(milliseconds=heartbeat_ms),
        replica_id=f"replica-{number}",
        rank=0,
        world_size=1,
        store_addr="127.0.0.1",
        store_port=store.port,
        lighthouse_addr=lighthouse,
        hostname="127.0.0.1",
    )
    with (folder / f"moments-{number}").open("a", buffering=1) as file:
        while True:
            time.sleep(1e-3)
            manager.start_quorum()
            manager.allreduce(state["x"]).wait()
            if manager.should_commit():
                file.write(f"{time.monotonic()} {manager.num_participants()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
