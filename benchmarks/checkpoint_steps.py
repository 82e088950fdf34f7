"""One rank of the checkpoint timing in suite_recover: blocks of steps with one and without in turn.

Usage, on each of several ranks: checkpoint_steps.py ROUNDS STEPS FILE. The default stdlib-lm model trains
with gossip; in every other block the first step takes a checkpoint, which a thread writes during the others.
Ranks meet before every block, and each block's file is on the disk before the next begins. Rank 0 writes
FILE: seconds of a step in either kind of block (median over blocks of their mean step, of the slowest rank),
of the stall in the step that takes the checkpoint, bytes of a rank's file, seconds until it is on the disk.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch import Tensor

import pydec
from pydec.train import split, tasks
from pydec.train.batches import Batches
from pydec.train.checkpoint import Saver, Snapshot
from pydec.train.checkpoint_files import OWN, Store
from pydec.train.checkpoint_state import flatten, model_tensors
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.gradients import forward
from pydec.train.loop import local_optimizer
from pydec.train.rundir import RunDir
from pydec.train.together import table


class TimedStore(Store):
    """Notes how long each file took."""

    seconds: list[float]
    nbytes: int = 0

    def write_buffer(self, step: int, rank: int, buffer: Tensor, body: Any) -> bytes:
        """See ``Store``."""
        start = time.perf_counter()
        digest = super().write_buffer(step, rank, buffer, body)
        self.seconds.append(time.perf_counter() - start)
        self.nbytes = buffer.numel()
        return digest


def main(rounds: int, steps: int, file: Path) -> None:
    """Time both kinds of block and write the result."""
    with (
        reproducible(threads=1),
        tempfile.TemporaryDirectory(dir=file.parent) as folder,
        pydec.init(seed=1) as peer,
    ):
        task = tasks.make("stdlib-lm", seed=1)
        config = TrainConfig("stdlib-lm", seed=1).resolve(task, peer.size)
        share = split.iid(task.samples, peer.size, 1)[peer.rank]
        data = iter(Batches(task.train, share, config.batch_size, 1, peer.rank))
        optimizer = pydec.DecentralizedOptimizer(
            local_optimizer(config, task, task.model),
            peer,
            compressor="int8",
            algorithm="dpsgd:order=cta",
            model=task.model,
        )

        def take() -> Snapshot:
            tensors = model_tensors(task.model)
            state = flatten(optimizer.state_dict(copy=False), f"{OWN}optimizer", tensors)
            return Snapshot(tensors, {"size": peer.size, "state": {"optimizer": state}})

        store = TimedStore(RunDir(Path(folder)))
        store.seconds = []
        found: dict[str, list[float]] = {"plain_s": [], "saving_s": [], "stall_s": []}
        with Saver(peer, store, take, every=1, keep=1) as saver:
            for current in range(2 * rounds + 2):
                saving = current % 2 == 1
                table(peer, [0.0])  # all ranks start together
                start = time.perf_counter()
                for step in range(steps):
                    loss = forward(task, task.model, next(data))
                    loss.backward()  # type: ignore[no-untyped-call]  # torch's annotation is missing
                    optimizer.step()
                    optimizer.zero_grad()
                    loss.item()
                    if saving and step == 0:
                        before = time.perf_counter()
                        saver.after(current)
                        stall = time.perf_counter() - before
                seconds = (time.perf_counter() - start) / steps
                saver.wait()
                if current >= 2:  # the first two warm up
                    found["saving_s" if saving else "plain_s"].append(seconds)
                    if saving:
                        found["stall_s"].append(stall)
        optimizer.close()
        found["write_s"] = store.seconds[1:]
        medians = table(peer, [statistics.median(values) for values in found.values()]).max(axis=0)
        if saver.left_out or saver.failure:
            raise AssertionError(f"{saver.left_out} checkpoints were left out; {saver.failure}")
        if peer.rank == 0:
            result = dict(zip(found, medians.tolist(), strict=True))
            file.write_text(json.dumps({**result, "bytes": store.nbytes}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
