"""How soon the others go on when a node is lost under a real Slurm, which ``slurmlab`` starts here."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .harness import Options, Row
from .recover_kills import neighbours, until, without
from .recover_rounds import END, ROUNDS, board
from .slurmlab import Cluster, missing

NODES = 4
LOSSES = 10
GRACE_S = 2.0
DIES_MS, SILENT_MS = 500.0, 3000.0
_WARM_UP = 20  # rounds before anybody is lost: the grace holds from there
_MORE = 40  # rounds that the others do after it
_LIMIT_S = 120.0


def rows(options: Options) -> Iterator[Row]:
    """A host that dies, whose connections its kernel closes, and one whose cable is cut.

    Raises:
        RuntimeError: no Slurm can be started here, or a job failed.
    """
    if (why := missing()) is not None:
        raise RuntimeError(why)
    losses = 1 if options.quick else options.rounds or LOSSES
    with Cluster(NODES) as cluster:
        for what, lose, target_ms in (
            ("dies", cluster.kill_node, DIES_MS),
            ("falls silent", cluster.silence_node, SILENT_MS),
        ):
            found = [lost(cluster, lose, seed) for seed in range(losses)]
            params = {"nodes": NODES, "topology": "ring", "losses": losses, "grace_s": GRACE_S}
            params["median_ms"] = 1e3 * statistics.median(found)
            worst_ms = 1e3 * max(found)
            name = f"host {what} to the next round of both neighbours, srun: worst"
            yield Row("slurm", name, params, worst_ms, "ms", "target", target_ms, target_ms / worst_ms)


def lost(cluster: Cluster, lose: Callable[[int], None], seed: int) -> float:
    """Lose one node of a new job at some moment; all nodes are there again afterwards.

    Args:
        cluster: with ``NODES`` nodes.
        lose: given its number, loses a node.
        seed: decides which and when.

    Returns:
        Seconds until both neighbours of the node's rank had finished a round without it.
    """
    drawn = random.Random(seed)
    victim = drawn.randrange(NODES)
    others = sorted({*range(NODES)} - {victim})
    program = str(Path(__file__).with_name("recover_rounds.py"))
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile("w+") as said:
        folder = Path(name)
        told = board(folder, NODES)
        words = ["salloc", f"--nodes={NODES}", f"--ntasks={NODES}", "--no-kill"]
        words += ["pydec", "run", "-n", str(NODES), "--max-restarts", "0"]
        words += [sys.executable, program, "256", name, "1", "0", "0", f"{GRACE_S:g}"]
        job = cluster.start(words, stdout=said, stderr=said)

        def check() -> None:
            if job.poll() is not None:
                said.seek(0)
                raise RuntimeError(f"the job ended with {job.returncode} too early:\n{said.read()[-2000:]}")

        try:
            until(lambda: bool((told[ROUNDS] >= _WARM_UP).all()), check)
            time.sleep(drawn.uniform(0.0, 0.5))
            moment_s, before = time.monotonic(), int(told[ROUNDS].max())
            lose(victim)
            until(lambda: bool((told[ROUNDS, others] > before + _WARM_UP).all()), check)
            told[END, 0] = told[ROUNDS].max() + _MORE
            ends = [folder / f"end-{rank}.json" for rank in others]
            until(lambda: all(end.exists() and end.stat().st_size for end in ends), lambda: None)
            return max(without(folder, rank, victim, moment_s) for rank in neighbours(victim))
        finally:
            cluster.revive()
            cluster.kill_processes()  # srun, which may wait a minute for the node that it has lost
            job.wait(_LIMIT_S)
