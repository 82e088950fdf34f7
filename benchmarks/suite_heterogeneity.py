"""Every algorithm on data that differ between ranks: Fashion-MNIST, Dirichlet 0.1, 16 ranks.

Ranks are threads of one process that take turns (the local cluster), so scores depend on the seed alone and
not on how busy the machine is. Each score is that of the best of two learning rates, as in the papers; every
row says which were tried, and which of them diverged. To make the table affordable, a run has a third of the
training images, half of the test images and a CNN of 27 k parameters, and runs are spread over processors.

Published figures beside ours: Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi, "RelaySum for
Decentralized Deep Learning on Heterogeneous Data", NeurIPS 2021, arXiv:2110.04175, table 2: CIFAR-10, VGG-11,
16 workers, Dirichlet 0.1, the least of the workers' accuracies. Data and model differ, so what is compared is
the order of the methods, by the worst rank, and how far the best is behind all-reduce.
"""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pydec import gossip, topology
from pydec.cli import bench
from pydec.comm.local import LocalCluster
from pydec.compress import make as make_compressor
from pydec.errors import ConfigError, HeterogeneityWarning, NonFiniteError
from pydec.optim.local import describe
from pydec.peer import Peer
from pydec.train import job, optimizers
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible
from pydec.train.tasks.fashion_mnist import DIRECTORY, read_idx

from .harness import Options, Row

RANKS = 16
ALPHA = 0.1
EPOCHS = 6
TASK, IMAGES = "fashion-mnist:channels=8,dense=32", {"train": 20_000, "t10k": 5_000}
QUICK_TASK, QUICK_IMAGES = "fashion-mnist:channels=1,dense=8", {"train": 500, "t10k": 100}
GRAPHS = ("ring", "one-peer-exponential")
RATES = (0.05, 0.0125)
MOMENTUM = "sgd:momentum=0.9,weight_decay=0.0005"
PLAIN = "sgd:weight_decay=0.0005"


@dataclass(frozen=True)
class Entry:
    """How one algorithm is run where the defaults will not do.

    Args:
        spec: the algorithm's options.
        optimizer: its local optimiser; if empty, SGD with momentum unless the algorithm brings its own.
        compressor: how packets are encoded.
        local_steps: between rounds.
        graphs: what to run it on.
        rate_scale: factor on the learning rates, where the algorithm's step is larger or smaller.
    """

    spec: str = ""
    optimizer: str = ""
    compressor: str = "none"
    local_steps: int = 1
    graphs: tuple[str, ...] = GRAPHS
    rate_scale: float = 1.0


ENTRIES: dict[str, tuple[Entry, ...]] = {
    "allreduce": (Entry(graphs=("complete",)),),
    "dpsgd": (Entry(), Entry(optimizer=PLAIN, rate_scale=10.0), Entry(compressor="int8")),
    "choco": (Entry(compressor="int8"), Entry(spec="gamma=0.4", compressor="topk:fraction=0.1")),
    "relaysgd": (Entry(graphs=("chain", "binary-tree")),),
    "k-gt": (Entry(local_steps=10, rate_scale=4.0),),
    "beer": (Entry(compressor="topk:fraction=0.1"),),
    "accum-adam": (Entry(rate_scale=0.05),),
    "damsgrad": (Entry(rate_scale=0.05),),
    "noloco": (Entry(local_steps=10, graphs=("random-matching",)),),
    "choco-diloco": (Entry(compressor="topk:fraction=0.03", local_steps=10),),
    "sparseloco": (Entry(compressor="topk:fraction=0.03", local_steps=10, graphs=("complete",)),),
    "streaming-diloco": (Entry(local_steps=10),),
    "quorum-diloco": (Entry(local_steps=10),),
    "diloco": (Entry(local_steps=10, graphs=("base-k:k=1",)),),
    "gossip-diloco": (Entry(spec="momentum=0.5", local_steps=10),),
    "gasloc": (Entry(spec="momentum=0.5", local_steps=10),),
}
"""By the algorithm's registered name; one run with the defaults where nothing is said."""


PUBLISHED: dict[tuple[str, str, str], float] = {
    ("allreduce", "complete", MOMENTUM): 90.2,
    ("relaysgd", "binary-tree", MOMENTUM): 89.5,
    ("relaysgd", "chain", MOMENTUM): 89.2,
    ("sgp", "one-peer-exponential", MOMENTUM): 89.2,
    ("exact-diffusion", "ring", MOMENTUM): 88.5,  # of D2, which does without (I + W) / 2
    ("qg-dsgdm", "ring", PLAIN): 84.8,
    ("dpsgd", "ring", PLAIN): 79.9,
}
"""By algorithm, graph and local optimiser; see the first lines of this file."""
BEHIND = {"ring": 1.7, "one-peer-exponential": 1.0}
"""Points that the best published method of a graph is behind all-reduce."""
_LEAST = 0.1  # points that are told apart: 5 of 5,000 images


@dataclass(frozen=True)
class Run:
    """One line of the table: what is trained, once with each learning rate."""

    name: str
    entry: Entry
    configs: tuple[TrainConfig, ...]

    @property
    def published(self) -> float | None:
        """Accuracy of the published run that this one resembles."""
        first = self.configs[0]
        if self.entry.spec or self.entry.compressor != "none":
            return None
        return PUBLISHED.get((self.name, first.topology, first.optimizer))


def rows(options: Options) -> Iterator[Row]:
    """Accuracy of the averaged model, and of the worst rank before averaging, beside all-reduce."""
    with tempfile.TemporaryDirectory() as folder:
        write_first(QUICK_IMAGES if options.quick else IMAGES, Path(folder))
        yield from _rows(options, folder)


def write_first(images: Mapping[str, int], folder: Path) -> None:
    """Fashion-MNIST's first images, unpacked: each of 16 ranks takes a second to unpack all, in every run."""
    for (part, count), kind in itertools.product(images.items(), ("images-idx3-ubyte", "labels-idx1-ubyte")):
        values = read_idx(Path(DIRECTORY) / f"{part}-{kind}.gz")[:count]
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
        (folder / f"{part}-{kind}").write_bytes(header + values.tobytes())


def _rows(options: Options, data: str) -> Iterator[Row]:
    base = TrainConfig(
        QUICK_TASK if options.quick else TASK,
        data=data,
        alpha=ALPHA,
        seed=1,
        threads=1,
        eval_every=1_000_000,
        log_every=1_000_000,
        **({"steps": 3} if options.quick else {"epochs": EPOCHS}),
    )
    ranks = 4 if options.quick else RANKS
    runs = [_run(base, *case, options) for case in _chosen(options)]
    reference: dict[str, Any] = {}
    worst: list[tuple[Run, float]] = []
    for run, tried in zip(runs, _trained(runs, ranks, options), strict=True):
        config, best = max(zip(run.configs, tried, strict=True), key=lambda pair: pair[1]["accuracy"])
        if run.name == "allreduce":
            reference = best
        peer = reference.get("accuracy") if run.name != "allreduce" else None
        least = max(100 * found["worst_rank"]["accuracy"] for found in tried)  # each by its own best rate
        worst.append((run, least))
        params = {
            "algorithm": config.algorithm,
            "graph": config.topology,
            "compressor": config.compressor,
            "optimizer": config.optimizer.partition(",weight_decay")[0],
            "local_steps": config.local_steps,
            "lr": config.lr,
            "rates": [each.lr for each in run.configs],
            "ranks": ranks,
            "alpha": ALPHA,
            "steps": best["steps"],
            "worst_rank": round(least, 2),
            "megabytes_per_rank": round(best["bytes_sent"] / 1e6 / ranks, 1),
        }
        if lost := [each.lr for each, found in zip(run.configs, tried, strict=True) if not found["steps"]]:
            params["diverged"] = lost
        if run.published is not None:
            params["published_worst_rank"] = run.published
        yield Row(
            "heterogeneity",
            f"{config.topology}: {config.algorithm}",
            params,
            100 * best["accuracy"],
            "%",
            None if peer is None else "allreduce",
            None if peer is None else 100 * peer,
            None if peer is None else best["accuracy"] / peer,
        )
    yield from _beside_published(worst)


def _beside_published(worst: Sequence[tuple[Run, float]]) -> Iterator[Row]:
    """Worst ranks: how far each graph's best is behind all-reduce; which pairs of methods are in order."""
    reference = max(score for run, score in worst if run.name == "allreduce")
    for graph, published in BEHIND.items():
        here = {
            f"{run.configs[0].algorithm}, {run.entry.compressor}": score
            for run, score in worst
            if run.configs[0].topology == graph
        }
        if here:
            best = max(here, key=lambda name: here[name])
            behind = reference - here[best]
            yield Row(
                "heterogeneity",
                f"worst rank behind all-reduce, best on {graph}",
                {"best": best, "worst_rank": round(here[best], 2), "allreduce": round(reference, 2)},
                behind,
                "points",
                "published best",
                published,
                published / max(behind, _LEAST),
            )
    known = [(run.published, score) for run, score in worst if run.published is not None]
    pairs = [(a, b) for a, b in itertools.combinations(known, 2) if a[0] != b[0]]
    if pairs:
        kept = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs)
        yield Row(
            "heterogeneity",
            "pairs of methods in the published order",
            {"methods": len(known)},
            kept,
            "pairs",
            "published",
            len(pairs),
            kept / len(pairs),
        )


def _run(base: TrainConfig, name: str, spec: str, graph: str, entry: Entry, options: Options) -> Run:
    config = replace(
        base,
        algorithm=spec,
        topology=graph,
        compressor=entry.compressor,
        local_steps=entry.local_steps,
        optimizer=entry.optimizer or _optimizer(spec),
    )
    if gossip.make(spec).asynchronous:  # nothing is evaluated on the way, and asking for it is refused
        config = replace(config, eval_every=TrainConfig.eval_every)
    rates = RATES[:1] if options.quick else RATES
    return Run(name, entry, tuple(replace(config, lr=rate * entry.rate_scale) for rate in rates))


def _trained(runs: Sequence[Run], ranks: int, options: Options) -> Iterator[list[dict[str, Any]]]:
    """Summaries, run by run, while the next ones are trained: one process for each processor."""
    if options.quick:  # a process takes longer to start than these runs
        yield from ([_train(config, ranks) for config in run.configs] for run in runs)
        return
    workers = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    # The initialiser makes this package known, which a source checkout's processes must be told of.
    with ProcessPoolExecutor(workers, spawn, bench.load, (__name__.rpartition(".")[2],)) as pool:
        waiting = [[pool.submit(_train, config, ranks) for config in run.configs] for run in runs]
        try:
            for row in waiting:
                yield [one.result() for one in row]
        finally:
            pool.shutdown(cancel_futures=True)


def _chosen(options: Options) -> Iterator[tuple[str, str, str, Entry]]:
    """All-reduce first; what cannot be combined is left out, as the algorithm says."""
    for name in sorted(gossip.algorithms, key=lambda name: (name != "allreduce", name)):
        if options.only and options.only not in name and name != "allreduce":
            continue
        for entry in ENTRIES.get(name, (Entry(),)):
            spec = f"{name}:{entry.spec}" if entry.spec else name
            for graph in entry.graphs:
                try:
                    gossip.make(spec).check(
                        topology.make(graph, size=RANKS), make_compressor(entry.compressor)
                    )
                except ConfigError:
                    continue
                yield name, spec, graph, entry


def _optimizer(spec: str) -> str:
    """Momentum SGD, or plain SGD where the algorithm says that it brings a momentum of its own."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    try:
        gossip.make(spec).check_local(describe(optimizers.make(MOMENTUM, [parameter], 0.1)))
    except ConfigError:
        return PLAIN
    return MOMENTUM


def _train(config: TrainConfig, ranks: int) -> dict[str, Any]:
    """Summary of one run on the local cluster; one that diverges has learned nothing, in no step."""
    with tempfile.TemporaryDirectory() as folder, reproducible(threads=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", HeterogeneityWarning)
        run_dir = str(Path(folder) / "run")

        def program(transport: Any) -> dict[str, Any]:
            with Peer(transport, signals=False) as peer:
                return job.run(peer, config, run_dir, quiet=True)

        try:
            return LocalCluster(ranks, deadline_s=1e9).run(program)[0]
        except NonFiniteError:
            return {"accuracy": 0.0, "worst_rank": {"accuracy": 0.0}, "steps": 0, "bytes_sent": 0}
        finally:
            gc.collect()  # models and data in cycles: gigabytes, which the collector takes for little
