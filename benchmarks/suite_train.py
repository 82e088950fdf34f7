"""Training over several ranks: accuracy and bytes beside all-reduce, and the cost of gossip in a step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .harness import Options, Row
from .jobs import measured, run_ranks
from .netlab.lab import Lab, Link

RANKS = 4
EPOCHS = 5
STEPS_OVER_LINKS = {"computed by the processors": 0.0, "computed by accelerators": 0.1}
"""Seconds that a step's pause takes, by what stands for it in the rows' names."""


def rows(options: Options) -> Iterator[Row]:
    """Fashion-MNIST beside all-reduce at equal steps; a step with and without gossip; one slow rank.

    With ``options.net`` a step and the races over several hosts instead.
    """
    if options.net:
        from .netlab import races

        races.require_hosts()
        yield from _steps_over_links(options)
        yield from races.rows(options)
        return
    parts = {
        "accuracy of the averaged model, bytes sent by all ranks": _accuracy_and_bytes,
        "step, combine then adapt": _step_time,
        "samples with one rank 4x slower": _one_slow_rank,
    }
    for names, part in parts.items():
        if options.only in names:
            yield from part(options)


def _accuracy_and_bytes(options: Options) -> Iterator[Row]:
    """4 ranks, one-peer exponential graph, int8 D-PSGD against averaging every gradient."""
    length = ["--steps", "12"] if options.quick else ["--epochs", str(EPOCHS)]
    task = "fashion-mnist:samples=2000" if options.quick else "fashion-mnist"
    common = [task, *length, "--seed", "1", "--threads", "1", "--eval-every", "1000000", "--quiet"]
    gossip = ["--algorithm", "dpsgd", "--compressor", "int8", "--topology", "one-peer-exponential"]
    ours = _train(RANKS, [*common, *gossip])
    peer = _train(RANKS, [*common, "--algorithm", "allreduce", "--compressor", "none"])
    if ours["steps"] != peer["steps"]:
        raise AssertionError(f"{ours['steps']} and {peer['steps']} steps cannot be compared")
    params = {"task": task, "ranks": RANKS, "steps": ours["steps"], "seed": 1}
    yield Row(
        "train",
        "accuracy of the averaged model",
        {**params, "points_behind": 100 * (peer["accuracy"] - ours["accuracy"])},
        100 * ours["accuracy"],
        "%",
        "allreduce",
        100 * peer["accuracy"],
        ours["accuracy"] / peer["accuracy"],
    )
    yield Row(
        "train",
        "bytes sent by all ranks",
        {**params, "fraction": ours["bytes_sent"] / peer["bytes_sent"]},
        ours["bytes_sent"] / 1e6,
        "MB",
        "allreduce",
        peer["bytes_sent"] / 1e6,
        peer["bytes_sent"] / ours["bytes_sent"],
    )


def _step_time(options: Options) -> Iterator[Row]:
    """2 ranks of 1 thread: a combine-then-adapt step against the same step that talks to nobody."""
    yield from _steps(2, "step, combine then adapt", options, {"ranks": 2}, rounds=20)


def _steps_over_links(options: Options) -> Iterator[Row]:
    """The same between hosts, computing on their processors and, as a pause stands for, on accelerators."""
    hosts = options.hosts
    with Lab([Link(options.net)] * hosts) as lab:
        for what, pause_s in STEPS_OVER_LINKS.items():
            name = f"step at {options.net}, {what}"
            if options.only in name:
                params = {"net": options.net, "hosts": hosts, "pause_s": pause_s}
                yield from _steps(lab, name, options, params, rounds=6, pause_s=pause_s)


def _steps(
    where: int | Lab,
    name: str,
    options: Options,
    params: Mapping[str, Any],
    *,
    rounds: int,
    pause_s: float = 0.0,
) -> Iterator[Row]:
    """Packets that move while the program waits for them, and packets that move in the background."""
    rounds, steps = options.rounds or (2 if options.quick else rounds), 3 if options.quick else 20
    for compressor in ("none", "int8"):
        found = measured(where, "train_steps.py", compressor, rounds, steps, pause_s)
        for kind, background in (("gossip_s", False), ("background_s", True)):
            facts = {
                "task": "stdlib-lm",
                **params,
                "threads": 1,
                "compressor": compressor,
                "background": background,
                "rounds": rounds,
                "steps": steps,
                "fraction": found[kind] / found["plain_s"],
            }
            ours, alone = found[kind], found["plain_s"]
            peer = "the same step alone"
            yield Row("train", name, facts, 1e3 * ours, "ms", peer, 1e3 * alone, alone / ours)


def _one_slow_rank(options: Options) -> Iterator[Row]:
    """4 ranks, one of them 4 times slower: samples per second beside what the healthy ones could do alone."""
    seconds = 1.0 if options.quick else 20.0
    found: dict[str, list[float]] = measured(RANKS, "paces.py", seconds)
    healthy = sum(found.pop("alone")[:-1])
    for name, by_rank in found.items():
        yield Row(
            "train",
            f"samples with one rank 4x slower, {name}",
            {
                "ranks": RANKS,
                "seconds": seconds,
                "slow_rank": round(by_rank[-1], 1),
                "times_ddp": round(sum(by_rank) / sum(found["DDP over gloo"]), 2),
            },
            sum(by_rank),
            "samples/s",
            "the 3 healthy ranks alone",
            healthy,
            sum(by_rank) / healthy,
        )


def _train(ranks: int, words: list[str]) -> dict[str, Any]:
    """Summary of one training job."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        run_ranks(ranks, ["train", *words, "--run-dir", str(run_dir)])
        found: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    if found["status"] != "done":
        raise AssertionError(f"the run is {found['status']}: {found.get('reason')}")
    return found
