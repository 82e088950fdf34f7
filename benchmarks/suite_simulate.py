"""Virtual peers a second: gossip of 100,000 vectors, and 1,000 linear models beside another simulator."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator

import numpy as np

from pydec import kernels, topology
from pydec.simulate.mixing import Mixing
from pydec.simulate.network import Link
from pydec.simulate.paces import Paces, make
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.train.config import TrainConfig

from .harness import Options, Row, interleaved, threads

CORES = 2
LENGTH = 1024
TASK = "fashion-mnist-linear"


def rows(options: Options) -> Iterator[Row]:
    """Rounds a second and memory of gossip alone; rounds a second of training."""
    with threads(CORES):
        yield from _mixing(options)
        yield from _exact(options)


def _mixing(options: Options) -> Iterator[Row]:
    size = 2_000 if options.quick else 100_000
    before = _resident()
    graph = topology.make("one-peer-exponential", size=size)
    state = Mixing(graph, LENGTH, 0, Link(), Paces(make("none"), 0.0, size, 0))
    start = state.distance()
    state.run(graph.period)  # every shape of a round is known, and every page is there
    memory = _resident() - before
    other = np.empty(state.x.size, np.float32)  # not counted: it is there for the limit alone
    contenders = {
        "rounds": lambda: state.run(graph.period),
        "copy": lambda: kernels.stream_copy(state.x.reshape(-1), other),
    }
    timings = interleaved(contenders, options.rounds or (2 if options.quick else 5), warmup=1)
    apart = state.distance()
    if not apart < 1e-3 * start:
        raise AssertionError(
            f"{state.rounds} rounds brought vectors from {start:g} to {apart:g} from their mean"
        )
    rate = graph.period / timings["rounds"].median_s
    limit = 1 / (1.5 * timings["copy"].median_s)  # two matrices read and one written, in place of one and one
    matrices = 2 * state.x.nbytes
    params = {"peers": size, "floats": LENGTH, "graph": graph.name, "threads": CORES}
    target = 20.0
    yield Row(
        "simulate", "gossip alone", params, rate, "rounds/s", "target", target, rate / target, rate / limit
    )
    yield Row(
        "simulate",
        "memory of it",
        params,
        memory / 1e6,
        "MB",
        "both matrices",
        matrices / 1e6,
        matrices / memory,
    )


def _resident() -> int:
    """Most bytes that this process has had in memory so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _exact(options: Options) -> Iterator[Row]:
    peers, steps = (50, 3) if options.quick else (1000, options.rounds or 30)
    for algorithm, compressor in (
        ("dpsgd:order=atc", "none"),
        ("dpsgd", "int8"),
        ("choco-peers", "topk:fraction=0.01"),
    ):
        config = TrainConfig(
            TASK, steps=steps, algorithm=algorithm, compressor=compressor, batch_size=32, threads=CORES,
            log_every=steps, topology="one-peer-exponential",
        )  # fmt: skip
        simulation = Simulation(Scenario(peers, config, gradients="batched"))
        began = time.perf_counter()
        outcome = simulation.run()
        rate = steps / (time.perf_counter() - began)
        if not (options.quick or outcome.summary["accuracy"] > 0.6):
            raise AssertionError(f"{peers} peers have learned nothing: {outcome.summary}")
        params = {
            "peers": peers,
            "algorithm": algorithm,
            "compressor": compressor,
            "batch": 32,
            "threads": CORES,
        }
        yield Row("simulate", "linear models", params, rate, "rounds/s", "target", 10.0, rate / 10.0)
