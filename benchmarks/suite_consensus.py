"""The ledger: time to commit over MPI with real fsyncs, message delays, processor time, verification."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pydec.consensus.replay import Replay
from pydec.consensus.simulator.network import Network
from pydec.consensus.simulator.state import note
from pydec.consensus.simulator.world import World

from .consensus_cluster import Cluster
from .harness import Options, Row
from .jobs import run_ranks

PROTOTYPE_MS = {4: 0.46, 16: 1.5, 64: 5.0, 256: 27.7}
"""Processor time per decision and node of a pure Python prototype of the same rules, without encoding of
messages, on a 2-core AMD EPYC: not measured in this run."""
TARGET_MS = {4: 5.0, 16: 40.0}
TARGET_BLOCKS_PER_S = 2000.0


def rows(options: Options) -> Iterator[Row]:
    """Everything that can be said of the ledger on one machine."""
    for size in (4,) if options.quick else (4, 16):
        yield from _over_mpi(options, size)
    for size in (4, 16) if options.quick else (4, 16, 64, 256):
        yield _delays(size)
    yield _crashed_leader()
    for size in (4, 16) if options.quick else (4, 16, 64, 256):
        yield _processor(size, 3 if options.quick or size > 100 else max(5, 200 // size))
    yield from _chain(50 if options.quick else 2000, options.rounds or (1 if options.quick else 5))
    yield _training(options)


def _over_mpi(options: Options, size: int) -> Iterator[Row]:
    """Closed loop: rank 0 submits the next transaction when the one before is committed there."""
    commits, silence_s = (20, 2.0) if options.quick else (500 if size == 4 else 200, 10.0)
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(__file__).with_name("consensus_node.py"))
        run_ranks(size, [sys.executable, program, folder, str(commits), str(silence_s)])
        found = json.loads((Path(folder) / "found.json").read_text())
    ordered = sorted(1e3 * taken for taken in found["latencies_s"])
    sync_ms = 1e3 * found["sync_s"]
    params = {"ranks": size, "commits": commits, "fdatasync_ms": round(sync_ms, 3)}
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    target = TARGET_MS[size]
    # Two syncs of votes follow one another on the way to a commit; the third is the append of the block.
    yield Row(
        "consensus", "commit, p50", params, p50, "ms", "target", target, target / p50, 3 * sync_ms / p50
    )
    yield Row("consensus", "commit, p99", params, p99, "ms")
    yield Row("consensus", "processor per commit and rank", params, 1e3 * found["cpu_s"], "ms")
    silent = {"ranks": size, "seconds": silence_s}
    yield Row("consensus", "sent when idle, all ranks", silent, found["idle_bytes"], "bytes")
    yield Row("consensus", "processor when idle, per rank", silent, 100 * found["idle_cpu"], "%")
    yield Row("consensus", "ledger file per decision", params, found["ledger_bytes"], "bytes")


def _delays(size: int) -> Row:
    """Message delays from the leader's proposal until the last node has committed."""
    delay_s = 0.1
    world = World([1] * size, network=Network(delay_s=(delay_s, delay_s)), pace_s=50.0)
    world.start()
    world.run(10.0)
    began_s, leader = world.now, world.genesis.leader
    world.submit(leader, note(0))
    if not world.run(began_s + 50.0, lambda: len(world.commits) == size):
        raise RuntimeError(f"{len(world.commits)} of {size} simulated nodes committed")
    delays = round((max(when for when, *_ in world.commits) - began_s) / delay_s, 6)
    return Row(
        "consensus",
        "message delays to commit",
        {"ranks": size},
        delays,
        "delays",
        "allowed",
        3.0,
        3.0 / delays,
    )


def _crashed_leader() -> Row:
    """Simulated time to commit when the leader is down, beyond the message delays, in timers."""
    delay_s, pace_s = 0.001, 0.2
    world = World([1] * 4, network=Network(delay_s=(delay_s, delay_s)), pace_s=pace_s)
    world.start()
    world.run(1.0)
    began_s, leader = world.now, world.genesis.leader
    world.crash(world.places[leader])
    world.submit((leader + 1) % 4, note(0))
    if not world.run(began_s + 100.0, lambda: len(world.commits) == 3):
        raise RuntimeError("the other three simulated nodes did not commit")
    taken_s = min(when for when, *_ in world.commits) - began_s
    # Not the timer's: transaction, timeout, its certificate, and the three of a round.
    timers = (taken_s - 6 * delay_s) / pace_s
    params = {"ranks": 4, "timer_s": pace_s}
    return Row(
        "consensus", "cost of a crashed leader", params, timers, "timers", "allowed", 1.0, 1.0 / timers
    )


def _processor(size: int, decisions: int) -> Row:
    """Per node and decision: signatures, encoding and decoding, state; without MPI and disk."""
    cluster = Cluster(size)
    taken = [cluster.decide() for _ in range(1 + decisions)][1:]  # the first fills caches
    ms = 1e3 * statistics.median(taken) / size
    prototype = PROTOTYPE_MS[size]
    params = {"ranks": size, "decisions": decisions}
    return Row(
        "consensus", "processor per decision and node", params, ms, "ms", "prototype, elsewhere", prototype,
        prototype / ms,
    )  # fmt: skip


def _chain(blocks: int, rounds: int) -> Iterator[Row]:
    """Verification of a chain that four nodes made, and how long it is."""
    cluster = Cluster(4)
    for _ in range(blocks):
        cluster.decide()
    taken_s = []
    for _ in range(rounds):
        replay, began_s = Replay(cluster.genesis), time.perf_counter()
        for record in cluster.records:
            replay.add(record)
        taken_s.append(time.perf_counter() - began_s)
        if replay.state.height != blocks:
            raise RuntimeError(f"{replay.state.height} of {blocks} blocks were verified")
    rate = blocks / statistics.median(taken_s)
    params = {"ranks": 4, "blocks": blocks}
    yield Row(
        "consensus", "chain verification", params, rate, "blocks/s", "target", TARGET_BLOCKS_PER_S,
        rate / TARGET_BLOCKS_PER_S,
    )  # fmt: skip
    mean = sum(map(len, cluster.records)) / blocks
    yield Row("consensus", "block and certificate", {**params, "transactions": 1}, mean, "bytes")


def _training(options: Options) -> Row:
    """Median step of four ranks with the ledger and without, in turn."""
    task, steps = ("stdlib-lm:width=32", 6) if options.quick else ("stdlib-lm", 60)
    rounds = options.rounds or (1 if options.quick else 5)
    medians: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for ledger in (True, False) if number % 2 else (False, True):
                run = f"{folder}/run-{number}-{ledger}"
                words = ["train", task, "--steps", str(steps), "--quiet", "--run-dir", run]
                words += ["--eval-every", str(max(1, steps // 4)), "--ledger", f"{folder}/ledger"][
                    : 4 if ledger else 2
                ]
                run_ranks(4, words)
                lines = Path(run, "metrics", "rank-0.jsonl").read_text().splitlines()
                told = [json.loads(line) for line in lines]
                medians[ledger].append(
                    statistics.median(
                        row["step_s"] for row in told if row["kind"] == "step" and row["step"] > 1
                    )
                )
    on, off = (1e3 * statistics.median(medians[ledger]) for ledger in (True, False))
    params = {"ranks": 4, "steps": steps, "rounds": rounds, "task": task}
    return Row("consensus", "training step, ledger on", params, on, "ms", "ledger off", off, off / on)
