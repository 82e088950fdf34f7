"""Takes ranks out of a running job and reads from the survivors' clocks when they went on."""

from __future__ import annotations

import contextlib
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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .harness import Options, Row
from .jobs import Started, started_ranks
from .recover_rounds import END, PROCESS, ROUNDS, board

RANKS = 4
KILLS = 20
STOPS = 5
GRACE_S = 2.0
SIZES = {"1 kB": 256, "40 MB": 10_000_000}
MEDIAN_MS, WORST_MS, EPOCH_MS = 50.0, 250.0, 2000.0
RETAINED = 0.977
_WARM_UP = 10  # rounds before anybody dies
_MORE = 40  # rounds that survivors do after it
_LIMIT_S = 120.0


def rows(options: Options) -> Iterator[Row]:
    """Kill or stop to the neighbours' next round or the next epoch, false alarms, throughput left."""
    kills = 2 if options.quick else options.rounds or KILLS
    for name, elements in SIZES.items():
        found = [kill(elements, seed) for seed in range(kills)]
        params = {"model": name, "ranks": RANKS, "topology": "ring", "kills": kills}
        what = f"kill to the next round of both neighbours, {name}"
        yield _against(f"{what}: median", params, statistics.median(found), MEDIAN_MS)
        yield _against(f"{what}: worst", params, max(found), WORST_MS)
    found = [kill(256, seed, ledger=True) for seed in range(kills)]
    params = {"ranks": RANKS, "kills": kills, "median_ms": 1e3 * statistics.median(found)}
    yield _against("kill to the epoch without it, all survivors: worst", params, max(found), EPOCH_MS)
    stops = 1 if options.quick else options.rounds or STOPS
    found = [stop(seed) for seed in range(stops)]
    params = {"ranks": RANKS, "topology": "ring", "stops": stops, "grace_s": GRACE_S}
    params["median_ms"] = 1e3 * statistics.median(found)
    name = f"stop (SIGSTOP) to the next round of both neighbours, grace {GRACE_S:g} s: worst"
    yield _against(name, params, max(found), 1e3 * GRACE_S + WORST_MS)
    yield false_alarms(50 if options.quick else 2000)
    yield retained(*(1, 2.0) if options.quick else (3, 29.0))


def _against(name: str, params: dict[str, Any], value_s: float, target_ms: float) -> Row:
    ratio = target_ms / (1e3 * value_s)
    return Row("recover", name, params, 1e3 * value_s, "ms", "target", target_ms, ratio)


def kill(elements: int, seed: int, *, ledger: bool = False) -> float:
    """Kill one rank of a new job at some moment.

    Args:
        elements: float32 of the model.
        seed: decides who and when.
        ledger: whether the ranks follow a ledger.

    Returns:
        Seconds until both its neighbours had finished a round without it: not one that they could finish with
        what it had sent before. With ``ledger``: until all survivors had finished one in an epoch without it.
    """
    drawn = random.Random(seed)
    victim = drawn.randrange(RANKS)
    with _job(RANKS, elements, ledger=ledger) as (folder, told, job):
        until(lambda: bool((told[ROUNDS] >= _WARM_UP).all()), job.check)
        time.sleep(drawn.uniform(0.0, 0.5))
        os.kill(int(told[PROCESS, victim]), signal.SIGKILL)
        moment_s = time.monotonic()
        if ledger:
            time.sleep(3.0)  # rounds to be in the next epoch in
        _end(told)
        job.wait(_LIMIT_S)
        ranks = set(range(RANKS)) - {victim} if ledger else neighbours(victim)
        return max(without(folder, rank, victim, moment_s) for rank in ranks)


def stop(seed: int) -> float:
    """Stop one rank of a new job at some moment, and let it go on when the others have left it out.

    Returns:
        Seconds until both its neighbours had finished a round without it.
    """
    drawn = random.Random(seed)
    victim = drawn.randrange(RANKS)
    ranks = sorted(neighbours(victim))
    with _job(RANKS, SIZES["1 kB"], grace=f"{GRACE_S:g}") as (folder, told, job):
        until(lambda: bool((told[ROUNDS] >= 2 * _WARM_UP).all()), job.check)  # the grace holds from there
        time.sleep(drawn.uniform(0.0, 0.5))
        process = int(told[PROCESS, victim])
        os.kill(process, signal.SIGSTOP)
        moment_s = time.monotonic()
        until(lambda: bool((told[ROUNDS, ranks] > told[ROUNDS, victim] + _WARM_UP).all()), job.check)
        _end(told)
        os.kill(process, signal.SIGCONT)  # it hears that it is out, and leaves
        job.wait(_LIMIT_S)
        return max(without(folder, rank, victim, moment_s) for rank in ranks)


def neighbours(rank: int) -> set[int]:
    """Those of a rank on the ring of ``RANKS``."""
    return {(rank - 1) % RANKS, (rank + 1) % RANKS}


def without(folder: Path, rank: int, victim: int, moment_s: float) -> float:
    """Seconds after a moment in which a rank finished its first round without another."""
    said = _said(folder, rank)
    without = said["moments_s"][said["gone"][str(victim)] :]
    return float(next(end_s for end_s in without if end_s >= moment_s) - moment_s)


def false_alarms(rounds: int) -> Row:
    """Rounds with pauses of a heavy tail (Pareto, 1.5: no variance) between them, in which nobody dies."""
    with _job(RANKS, SIZES["1 kB"], jitter_ms=5.0, rounds=rounds) as (folder, _, job):
        job.wait(_LIMIT_S + 0.1 * rounds)
        said = [_said(folder, rank) for rank in range(RANKS)]
    evicted = sum(len(each["gone"]) for each in said)
    longest_s = max(float(np.diff(each["moments_s"]).max()) for each in said)
    params = {"ranks": RANKS, "rounds": rounds, "longest_round_ms": 1e3 * longest_s}
    name = "ranks dropped that were alive, heavy jitter"
    return Row("recover", name, params, evicted, "ranks", "target", 0.0)


def retained(faults: int, every_s: float, ranks: int = 8) -> Row:
    """Throughput of the living ranks with faults, over that without: rounds a second of a rank that survives.

    Local steps are sleeps of 20 ms, so that a core that a dead rank leaves free makes nobody faster. Rank 0
    survives; its rounds are counted over as long as the faults take, without and with them.

    Args:
        faults: ranks that are killed, one after the other.
        every_s: between them; the published mark has one in 29 s.
        ranks: that start.
    """
    drawn = random.Random(ranks)
    rates = []
    for count in (0, faults):
        victims = drawn.sample(range(1, ranks), count)
        with _job(ranks, SIZES["1 kB"], compute_ms=20.0) as (_, told, job):
            until(lambda told=told: bool((told[ROUNDS] >= _WARM_UP).all()), job.check)  # type: ignore[misc]
            before, began_s = int(told[ROUNDS, 0]), time.monotonic()
            for number in range(faults):
                time.sleep(every_s / 2)
                if number < count:
                    os.kill(int(told[PROCESS, victims[number]]), signal.SIGKILL)
                time.sleep(every_s / 2)
            rates.append((int(told[ROUNDS, 0]) - before) / (time.monotonic() - began_s))
            _end(told)
            job.wait(_LIMIT_S)
    value = rates[1] / rates[0]
    params = {"ranks": ranks, "faults": faults, "every_s": every_s, "rounds_per_s": rates[0]}
    name = "throughput of the living that faults leave"
    return Row("recover", name, params, 100 * value, "%", "target", 100 * RETAINED, value / RETAINED)


@contextlib.contextmanager
def _job(
    ranks: int,
    elements: int,
    *,
    compute_ms: float = 1.0,  # without, a small round is all waking up
    jitter_ms: float = 0.0,
    ledger: bool = False,
    rounds: int = 0,
    grace: str = "auto",
) -> Iterator[tuple[Path, NDArray[np.int64], Started]]:
    """Its folder, its board and the job itself, under ``pydec run``."""
    program = str(Path(__file__).with_name("recover_rounds.py"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = board(folder, ranks)
        told[END, 0] = rounds
        options = [str(elements), name, str(compute_ms), str(jitter_ms), "1" if ledger else "0", grace]
        with started_ranks(ranks, [sys.executable, program, *options]) as job:
            yield folder, told, job


def _said(folder: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"end-{rank}.json").read_text())
    return found


def _end(told: NDArray[np.int64]) -> None:
    """Name a last round that no rank has come to yet: they are a few rounds apart at most."""
    told[END, 0] = told[ROUNDS].max() + _MORE


def until(what: Callable[[], bool], check: Callable[[], None]) -> None:
    """Wait for something, and have it checked meanwhile that it can still come."""
    until_s = time.monotonic() + _LIMIT_S
    while not what():
        check()
        if time.monotonic() > until_s:
            raise RuntimeError(f"the ranks did not get that far within {_LIMIT_S:g} s")
        time.sleep(1e-3)
