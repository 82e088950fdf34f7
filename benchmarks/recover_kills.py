"""Takes ranks out of a running job and reads from the survivors' clocks when they went on."""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .harness import Options, Row
from .jobs import started_ranks
from .recover_rounds import END, PROCESS, ROUNDS, board

RANKS = 4
KILLS = 20
SIZES = {"1 kB": 256, "40 MB": 10_000_000}
MEDIAN_MS, WORST_MS = 50.0, 250.0
_WARM_UP = 10  # rounds before anybody dies
_MORE = 40  # rounds that survivors do after it
_LIMIT_S = 120.0


def rows(options: Options) -> Iterator[Row]:
    """Kill to the neighbours' next round, and evictions where nobody died."""
    kills = 2 if options.quick else options.rounds or KILLS
    for name, elements in SIZES.items():
        found = [kill(elements, seed) for seed in range(kills)]
        params = {"model": name, "ranks": RANKS, "topology": "ring", "kills": kills}
        for what, value_s, target_ms in (
            ("median", statistics.median(found), MEDIAN_MS),
            ("worst", max(found), WORST_MS),
        ):
            yield Row(
                "recover",
                f"kill to the next round of both neighbours, {name}: {what}",
                params,
                1e3 * value_s,
                "ms",
                "target",
                target_ms,
                target_ms / (1e3 * value_s),
            )
    yield false_alarms(50 if options.quick else 2000)


def kill(elements: int, seed: int) -> float:
    """Kill one rank of a new job at some moment.

    Args:
        elements: float32 of the model.
        seed: decides who and when.

    Returns:
        Seconds until both its neighbours had finished a round without it: not one that they could
        finish with what it had sent before.
    """
    drawn = random.Random(seed)
    victim = drawn.randrange(RANKS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = board(folder, RANKS)
        with started_ranks(RANKS, _program(elements, folder)) as job:
            _until(lambda: bool((told[ROUNDS] >= _WARM_UP).all()), job.check)
            time.sleep(drawn.uniform(0.0, 0.5))
            os.kill(int(told[PROCESS, victim]), signal.SIGKILL)
            moment_s = time.monotonic()
            _end(told)
            job.wait(_LIMIT_S)
        waits_s = []
        for neighbour in ((victim - 1) % RANKS, (victim + 1) % RANKS):
            said = json.loads((folder / f"end-{neighbour}.json").read_text())
            without = said["moments_s"][said["gone"][str(victim)] :]
            waits_s.append(next(end_s for end_s in without if end_s >= moment_s) - moment_s)
        return max(waits_s)


def false_alarms(rounds: int) -> Row:
    """Rounds with pauses of a heavy tail (Pareto, 1.5: no variance) between them, in which nobody dies."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = board(folder, RANKS)
        told[END, 0] = rounds
        with started_ranks(RANKS, _program(SIZES["1 kB"], folder, jitter_ms=5.0)) as job:
            job.wait(_LIMIT_S + 0.1 * rounds)
        said = [json.loads((folder / f"end-{rank}.json").read_text()) for rank in range(RANKS)]
    evicted = sum(len(each["gone"]) for each in said)
    longest_s = max(float(np.diff(each["moments_s"]).max()) for each in said)
    params = {"ranks": RANKS, "rounds": rounds, "longest_round_ms": 1e3 * longest_s}
    name = "ranks dropped that were alive, heavy jitter"
    return Row("recover", name, params, evicted, "ranks", "target", 0.0)


def _program(elements: int, folder: Path, jitter_ms: float = 0.0) -> list[str]:
    program = Path(__file__).with_name("recover_rounds.py")
    return [sys.executable, str(program), str(elements), str(folder), str(jitter_ms)]


def _end(told: NDArray[np.int64]) -> None:
    """Name a last round that no rank has come to yet: they are a few rounds apart at most."""
    told[END, 0] = told[ROUNDS].max() + _MORE


def _until(what: Callable[[], bool], check: Callable[[], None]) -> None:
    until_s = time.monotonic() + _LIMIT_S
    while not what():
        check()
        if time.monotonic() > until_s:
            raise RuntimeError(f"the ranks did not get that far within {_LIMIT_S:g} s")
        time.sleep(1e-3)
