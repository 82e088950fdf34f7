"""Virtual peers a second: gossip of 100,000 vectors, and 1,000 linear models beside another simulator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pydec import kernels, topology
from pydec.simulate.mixing import Mixing
from pydec.simulate.network import Link
from pydec.simulate.paces import Paces, make
from pydec.simulate.run import Simulation
from pydec.simulate.scenario import Scenario
from pydec.train import tasks
from pydec.train.config import TrainConfig

from .harness import Options, Row, interleaved, threads
from .libraries import library, part

CORES = 2
LENGTH = 1024
BATCH = 32
TASK = "fashion-mnist-linear"


def rows(options: Options) -> Iterator[Row]:
    """Rounds a second and memory of gossip alone; rounds a second of training."""
    with threads(CORES):
        if options.only in "gossip alone":
            yield from _mixing(options)
        if options.only in "linear models":
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
        matrices / memory if memory else None,  # none: the pages were there from before
    )


def _resident() -> int:
    """Most bytes that this program has had in memory so far; what getrusage says has its parent's, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return 1024 * int(line.split()[1])


def _exact(options: Options) -> Iterator[Row]:
    """One step on 32 images and one neighbour a round for every peer, here and in gossipy."""
    peers, steps = (50, 3) if options.quick else (1000, options.rounds or 30)
    theirs = _gossipy(peers, max(3, steps // 6))
    for algorithm, compressor in (
        ("dpsgd:order=atc", "none"),
        ("dpsgd", "int8"),
        ("choco-peers", "topk:fraction=0.01"),
    ):
        config = TrainConfig(
            TASK, steps=steps, algorithm=algorithm, compressor=compressor, batch_size=BATCH, threads=CORES,
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
            "batch": BATCH,
            "threads": CORES,
        }
        if isinstance(theirs, str):
            yield Row("simulate", "linear models", {**params, "gossipy": theirs}, rate, "rounds/s")
        else:
            yield Row(
                "simulate", "linear models", params, rate, "rounds/s", "gossipy-dfl", theirs, rate / theirs
            )


def _gossipy(peers: int, rounds: int) -> float | str:
    """Rounds a second of gossipy on the same data, model and batch, without compression; or why not.

    In one of its rounds every node sends its model to a random one, which averages and takes a step. The
    first rounds are not counted.
    """
    found = library("gossipy")
    if isinstance(found, str):
        return found
    names = ("core", "data.handler", "model.handler", "node", "simul")
    core, data, handler, node, simul = (part(f"gossipy.{name}") for name in names)
    dispatcher = part("gossipy.data").DataDispatcher
    task = tasks.make(TASK)
    x, y = task.train.tensors

    base: Any = part("gossipy.model").TorchModel

    class Linear(base):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(784, 10)

        def init_weights(self) -> None:
            torch.nn.init.zeros_(self.layer.weight)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(images)

    part("gossipy").set_seed(0)
    held = data.ClassificationDataHandler(x.flatten(1), y, x[:20].flatten(1), y[:20])
    shares = dispatcher(held, n=peers, eval_on_user=False, auto_assign=True)
    net = core.StaticP2PNetwork(peers, None)
    sgd = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.0005}
    made = handler.TorchModelHandler(
        net=Linear(), optimizer=torch.optim.SGD, optimizer_params=sgd, criterion=torch.nn.CrossEntropyLoss(),
        local_epochs=0, batch_size=BATCH, create_model_mode=core.CreateModelMode.MERGE_UPDATE,
    )  # fmt: skip
    nodes = node.GossipNode.generate(
        data_dispatcher=shares, p2p_net=net, model_proto=made, round_len=1, sync=True
    )
    simulator = simul.GossipSimulator(
        nodes=nodes,
        data_dispatcher=shares,
        delta=1,
        protocol=core.AntiEntropyProtocol.PUSH,
        sampling_eval=1e-9,
    )
    simulator.init_nodes(seed=0)
    simulator.start(n_rounds=max(1, rounds // 2))
    began = time.perf_counter()
    simulator.start(n_rounds=rounds)
    return rounds / (time.perf_counter() - began)
