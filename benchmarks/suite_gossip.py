"""A round of gossip between 4 ranks beside MPI's own Allreduce, and the memory that gossip holds."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pydec import compress, gossip, topology
from pydec.comm.local import LocalCluster
from pydec.gossip.exchange import Exchange

from .harness import Options, Row
from .jobs import run_ranks

RANKS = 4
ELEMENTS = 10_000_000  # 40 MB


def rows(options: Options) -> Iterator[Row]:
    """Time of a round over shared memory, then buffers in units of the model."""
    yield from _rounds(options)
    yield from _memory(1 << 16 if options.quick else 1 << 20)


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
    for compressor in ("none", "int8"):
        for peer in ("Allreduce", "Sendrecv + average"):
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
