"""A round of gossip between 4 ranks beside MPI's own Allreduce, and the memory that gossip holds."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.comm.transport import Transport
from pydec.compress.base import Compressor
from pydec.gossip.exchange import Exchange
from pydec.topology.base import Topology

from .harness import Options, Row
from .jobs import run_ranks

RANKS = 4
ELEMENTS = 10_000_000  # 40 MB


def rows(options: Options) -> Iterator[Row]:
    """Time of a round over shared memory; buffers, then bytes sent in a round, in units of the model."""
    yield from _rounds(options)
    yield from _memory(1 << 16 if options.quick else 1 << 20)
    yield from _growth((4, 8) if options.quick else (4, 8, 16, 32, 64))


def _rounds(options: Options) -> Iterator[Row]:
    elements = 100_000 if options.quick else ELEMENTS
    rounds = options.rounds or (3 if options.quick else 25)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rounds.json"
        program = Path(__file__).with_name("gossip_round.py")
        run_ranks(RANKS, [sys.executable, str(program), str(elements), str(rounds), str(result)])
        found = json.loads(result.read_text())
    params = {
        "ranks": RANKS,
        "megabytes": 4e-6 * elements,
        "rounds": rounds,
        "topology": "one-peer-exponential",
    }
    for compressor in ("none", "int8", "auto"):
        for peer in ("Allreduce", "Sendrecv + average", *(["none"] if compressor == "auto" else [])):
            yield Row(
                "gossip",
                f"round, {compressor}",
                {**params, "fraction": round(found[compressor] / found[peer], 3)},
                1e3 * found[compressor],
                "ms",
                peer,
                1e3 * found[peer],
                found[peer] / found[compressor],
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
