"""One worker of ``torchrun`` that averages a vector over gloo, round after round, for ``recover_peers``.

Usage, started by torchrun: recover_elastic.py ELEMENTS FOLDER. It sleeps a millisecond before every round,
and appends to FOLDER/moments-PROCESS after every round the moment (CLOCK_MONOTONIC, seconds) and how many
workers took part. A worker whose neighbour dies ends with gloo's error, and torchrun starts all again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist


def main(elements: int, folder: Path) -> None:
    """Average until killed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    x = torch.full((elements,), float(dist.get_rank()))
    with (folder / f"moments-{os.getpid()}").open("a", buffering=1) as file:
        while True:
            time.sleep(1e-3)
            dist.all_reduce(x)
            x /= dist.get_world_size()
            file.write(f"{time.monotonic()} {dist.get_world_size()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
