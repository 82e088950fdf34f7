"""Rounds and steps of gossip beside MPI, DDP and other libraries, on one host and over links; memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.compress.base import Compressor
from pydec.gossip.exchange import Exchange
from pydec.topology.base import Topology

from .harness import Options, Row
from .jobs import measured
from .netlab.lab import Lab, Link, bits_per_s, missing

RANKS = 4
ELEMENTS = 10_000_000  # 40 MB
GRAPH = "one-peer-exponential"
LINKS = ("10gbit", "1gbit", "100mbit")
FAST_BITS_PER_S = 500e6


def rows(options: Options) -> Iterator[Row]:
    """Time of a round over shared memory and over links, and of a step; buffers, and bytes sent in a round.

    With ``options.net`` the round over links of that rate alone.
    """
    links = (options.net,) if options.net else LINKS[-2:-1] if options.quick else LINKS
    if not options.net:
        yield from _rounds(options)
        yield from _steps(options)
        yield from _memory(1 << 16 if options.quick else 1 << 20)
        yield from _growth((4, 8) if options.quick else (4, 8, 16, 32, 64))
    yield from _over_links(links, options)


def _rounds(options: Options) -> Iterator[Row]:
    elements = 100_000 if options.quick else ELEMENTS
    rounds = options.rounds or (3 if options.quick else 25)
    found = measured(RANKS, "gossip_round.py", elements, rounds)
    yield from _compared(
        "round", found, {"ranks": RANKS, "megabytes": 4e-6 * elements, "rounds": rounds, "topology": GRAPH}
    )


def _over_links(links: Sequence[str], options: Options) -> Iterator[Row]:
    """The round between hosts, each behind a link; says why not where hosts cannot be made."""
    if (reason := missing()) is not None:
        print(f"rounds over links left out: {reason}", file=sys.stderr)
        return
    elements = 100_000 if options.quick else ELEMENTS
    for net in links:
        rounds = options.rounds or (2 if options.quick else 7 if bits_per_s(net) < FAST_BITS_PER_S else 15)
        with Lab([Link(net)] * options.hosts) as lab:
            found = measured(lab, "gossip_round.py", elements, rounds)
        params = {"net": net, "hosts": options.hosts, "megabytes": 4e-6 * elements, "rounds": rounds}
        yield from _compared(f"round at {net}", found, {**params, "topology": GRAPH})


def _compared(name: str, found: Mapping[str, float], params: Mapping[str, Any]) -> Iterator[Row]:
    """Our rounds beside MPI's, and compressed ones beside plain ones; ``auto`` with its trials' share."""
    for compressor in ("none", "int8", "auto"):
        ours, more = found[compressor], {}
        if compressor == "auto":
            more = {"between_trials_ms": 1e3 * ours, "ranks_that_compress": found["ranks that compress"]}
            ours = found["auto, trials included"]
        for peer in ("Allreduce", "Sendrecv + average", *(["none"] if compressor != "none" else [])):
            theirs = found[peer]
            facts = {**params, **more, "fraction": round(ours / theirs, 3)}
            yield Row(
                "gossip", f"{name}, {compressor}", facts, 1e3 * ours, "ms", peer, 1e3 * theirs, theirs / ours
            )


def _steps(options: Options) -> Iterator[Row]:
    """A training step of a model of 10 M parameters by every method that is installed."""
    width, steps = (64, 2) if options.quick else (1000, 5)
    rounds = options.rounds or (2 if options.quick else 12)
    found = measured(RANKS, "gossip_step.py", width, rounds, steps)
    for name, reason in found["left_out"].items():
        print(f"step: {name} left out: {reason}", file=sys.stderr)
    seconds: dict[str, float] = found["seconds"]
    params = {"ranks": RANKS, "parameters": found["parameters"], "rounds": rounds, "steps": steps}
    for ours in ("none", "int8"):
        for peer, theirs in seconds.items():
            if peer not in ("none", "int8"):
                facts = {**params, "topology": GRAPH, "alone_ms": 1e3 * seconds["alone"]}
                yield Row(
                    "gossip",
                    f"step, {ours}",
                    facts,
                    1e3 * seconds[ours],
                    "ms",
                    peer,
                    1e3 * theirs,
                    theirs / seconds[ours],
                )


def _memory(n: int) -> Iterator[Row]:
    """Algorithm state, outbox and inbox of one rank, whatever the number of neighbours."""
    for algorithm, graph, compressor, size in (
        ("dpsgd", "one-peer-exponential", "none", 16),
        ("dpsgd", "exponential", "none", 16),
        ("dpsgd", "one-peer-exponential", "int8", 16),
        ("dpsgd", "complete", "int8", 16),
        ("choco", "exponential", "int8", 16),
        ("choco", "exponential", "topk:fraction=0.01", 16),
    ):
        schedule, part, chosen = (
            topology.make(graph, size=size),
            compress.make(compressor),
            gossip.make(algorithm),
        )
        mixer = chosen.mixer(np.zeros(n, np.float32), part, schedule.degree)
        transport = LocalCluster(size).run(lambda own: own)[0]
        models = Exchange(transport, schedule, [mixer], budget=chosen.budget).buffer_bytes / (4 * n)
        params = {
            "algorithm": algorithm,
            "compressor": compressor,
            "ranks": size,
            "neighbours": schedule.degree,
        }
        yield Row(
            "gossip",
            f"buffers, {graph}",
            params,
            models,
            "models",
            "allowed",
            chosen.budget,
            chosen.budget / models,
        )


def _growth(sizes: Sequence[int]) -> Iterator[Row]:
    """Bytes that the busiest rank sends in a round, headers included, over one period of the graph."""
    elements = 1 << 14
    for graph, compressor in (
        ("one-peer-exponential", "none"),
        ("one-peer-exponential", "int8"),
        ("base-k:k=1", "none"),
        ("ring", "none"),
        ("exponential", "none"),
        ("complete", "none"),
    ):
        for size in sizes:
            schedule = topology.make(graph, size=size)
            part = compress.make(compressor)

            def program(
                transport: Transport, schedule: Topology = schedule, part: Compressor = part
            ) -> tuple[int, int]:
                mixer = gossip.make("dpsgd").mixer(np.zeros(elements, np.float32), part, schedule.degree)
                exchange = Exchange(transport, schedule, [mixer], budget=2)
                for round in range(schedule.period):
                    exchange.run(round)
                exchange.flush()
                return transport.bytes_sent, schedule.period

            counted = LocalCluster(size).run(program)
            models = max(sent / rounds for sent, rounds in counted) / (4 * elements)
            ring = 2 * (size - 1) / size
            yield Row(
                "gossip",
                f"bytes per rank and round, {graph}",
                {"compressor": compressor, "ranks": size},
                models,
                "models",
                "ring all-reduce",
                ring,
                ring / models,
            )
