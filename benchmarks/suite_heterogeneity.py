"""Every algorithm on data that differ between ranks: Fashion-MNIST, Dirichlet 0.1, 16 ranks.

Ranks are threads of one process that take turns (the local cluster), so scores depend on the seed alone and
not on how busy the machine is. Each score is that of the best of two learning rates, as in the papers.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pydec import gossip, topology
from pydec.comm.local import LocalCluster
from pydec.compress import make as make_compressor
from pydec.errors import ConfigError, HeterogeneityWarning
from pydec.optim.local import describe
from pydec.peer import Peer
from pydec.train import job, optimizers
from pydec.train.config import TrainConfig
from pydec.train.determinism import reproducible

from .harness import Options, Row

RANKS = 16
ALPHA = 0.1
EPOCHS = 3
GRAPHS = ("ring", "one-peer-exponential")
RATES = (0.02, 0.005)
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
    "diloco": (Entry(local_steps=10, graphs=("base-k:k=1",)),),
    "gossip-diloco": (Entry(spec="momentum=0.5", local_steps=10),),
    "gasloc": (Entry(spec="momentum=0.5", local_steps=10),),
}
"""By the algorithm's registered name; one run with the defaults where nothing is said."""


def rows(options: Options) -> Iterator[Row]:
    """Accuracy of the averaged model, and of the worst rank before averaging, beside all-reduce."""
    base = TrainConfig(
        "fashion-mnist:samples=3000" if options.quick else "fashion-mnist",
        alpha=ALPHA,
        seed=1,
        threads=1,
        eval_every=1_000_000,
        log_every=1_000_000,
        **({"steps": 3} if options.quick else {"epochs": EPOCHS}),
    )
    ranks = 4 if options.quick else RANKS
    reference: dict[str, Any] = {}
    for name, spec, graph, entry in _chosen(options):
        optimizer = entry.optimizer or _optimizer(spec)
        config = replace(
            base,
            algorithm=spec,
            topology=graph,
            compressor=entry.compressor,
            local_steps=entry.local_steps,
            optimizer=optimizer,
        )
        if gossip.make(spec).asynchronous:  # nothing is evaluated on the way, and asking for it is refused
            config = replace(config, eval_every=TrainConfig.eval_every)
        rates = [rate * entry.rate_scale for rate in (RATES[:1] if options.quick else RATES)]
        tried = {lr: _train(replace(config, lr=lr), ranks) for lr in rates}
        lr, best = max(tried.items(), key=lambda item: item[1]["accuracy"])
        if name == "allreduce":
            reference = best
        peer = reference.get("accuracy") if name != "allreduce" else None
        params = {
            "algorithm": spec,
            "graph": graph,
            "compressor": entry.compressor,
            "optimizer": optimizer.partition(",weight_decay")[0],
            "local_steps": entry.local_steps,
            "lr": lr,
            "ranks": ranks,
            "alpha": ALPHA,
            "steps": best["steps"],
            "worst_rank": round(100 * best["worst_rank"]["accuracy"], 2),
            "megabytes_per_rank": round(best["bytes_sent"] / 1e6 / ranks, 1),
        }
        yield Row(
            "heterogeneity",
            f"{graph}: {spec}",
            params,
            100 * best["accuracy"],
            "%",
            None if peer is None else "allreduce",
            None if peer is None else 100 * peer,
            None if peer is None else best["accuracy"] / peer,
        )


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
    """Summary of one run on the local cluster."""
    with tempfile.TemporaryDirectory() as folder, reproducible(threads=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", HeterogeneityWarning)
        run_dir = str(Path(folder) / "run")

        def program(transport: Any) -> dict[str, Any]:
            with Peer(transport, signals=False) as peer:
                return job.run(peer, config, run_dir, quiet=True)

        return LocalCluster(ranks, deadline_s=1e9).run(program)[0]
