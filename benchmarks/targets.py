"""What the results are held against, and which of them README shows first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LARGE = 16 << 20  # elements; shares of the copy bandwidth are asked for at 64 MiB and more


@dataclass(frozen=True)
class Target:
    """What one kind of row should reach; the first that fits a row counts.

    Args:
        suite: its suite.
        name: pattern of its whole name.
        peer: pattern of its whole peer.
        ratio: at least so many times better than the peer.
        share: at least so much of the copy bandwidth, for one thread and large vectors.
        params: settings that the row must have.
    """

    suite: str
    name: str
    peer: str = ".*"
    ratio: float | None = None
    share: float | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether it is meant for this row."""
        if row["suite"] != self.suite or not re.fullmatch(self.name, row["name"]):
            return False
        params = row["params"]
        if not self.params.items() <= params.items():
            return False
        large = params.get("n", 0) >= LARGE and params.get("threads") == 1
        return bool(re.fullmatch(self.peer, row["peer"] or "")) and (self.share is None or large)


@dataclass(frozen=True)
class Headline:
    """A measurement that README shows: the one with the largest size, then with our best value.

    Args:
        what: how README calls it.
        suite: its suite.
        name: pattern of its whole name.
        params: settings that it must have.
        best: "least" or "most".
    """

    what: str
    suite: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    best: str = "least"


TARGETS = (
    Target("train", r"time to .* 0\.4 M.*", "DDP", ratio=8.0),
    Target("train", r"time to .* 10 M.*", "DDP", ratio=5.0),
    Target("train", r"time to .* 5 M.*", "DDP", ratio=15.0),
    Target("train", r"time to .* 10 M.*", ratio=1.5),
    Target("train", r"time to .*", ratio=2.0),
    Target("train", r"samples with one rank 4x slower, ad-?.*", ratio=0.85),
    Target("train", "step at 1gbit, .*", ratio=1 / 1.1, params={"background": True}),
    Target("gossip", "(round|step), none", "Sendrecv.*", ratio=1 / 1.1),
    Target("gossip", "round( at .*)?, auto", "none", ratio=1 / 1.1),
    Target("gossip", "step, .*", "DDP.*|decent-dp.*|hivemind.*", ratio=1.0),
    Target("heterogeneity", "worst rank behind all-reduce, .*", ratio=1.0),
    Target("heterogeneity", "pairs of methods .*", ratio=1.0),
    Target("kernels", "EF [+] int[48] encode", "torch.compile", ratio=4.0, share=0.95),
    Target("kernels", "EF [+] int8 encode", "torch eager", ratio=6.0, share=0.95),
    Target("kernels", "EF [+] int4 encode", share=0.95),
    Target("kernels", "EF [+] sign encode", "1-bit.*|DeepSpeed.*", ratio=10.0, share=0.90),
    Target("kernels", "EF [+] sign encode", share=0.90),
    Target("kernels", "int8 encode, libraries", "FBGEMM.*", ratio=1.15),
    Target("kernels", "int8 encode, libraries", "bitsandbytes.*", ratio=50.0),
    Target("kernels", "int8 encode", share=0.80),
    Target("kernels", "int[48] stochastic encode", share=0.65),
    Target("kernels", "top-k", "torch eager", ratio=60.0, share=0.60, params={"fraction": 0.01}),
    Target("kernels", "top-k", "numpy.*", ratio=9.0, share=0.60, params={"fraction": 0.01}),
    Target("kernels", "top-k", share=0.75, params={"fraction": 0.001}),
    Target("kernels", "top-k with feedback", share=0.75, params={"fraction": 0.01}),
    Target("kernels", "top-k with feedback", share=0.95, params={"fraction": 0.001}),
    Target("kernels", "int8 decode [+] accumulate", share=1.0),
    Target("kernels", "choco step .*", share=0.95),
    Target("kernels", "median of 8|trimmed mean of 8", share=0.85),
    Target("kernels", "e[45]m[23] decode", share=0.85),
    Target("kernels", "PowerSGD with feedback", "epfml.*", ratio=6.0, share=0.70, params={"rank": 4}),
    Target("secure", "seal [+] open, .*", "raw cipher", ratio=0.9),
    Target("secure", "handshakes of all pairs", "the limit", ratio=1.0),
    Target("secure", "(round|step) at .*, sealed", "plain", ratio=1 / 1.05),
    Target("secure", "round, sealed", "plain", ratio=1 / 2.5),
    Target("store", "verified read", "BLAKE3.*", ratio=0.8),
    Target("store", "add", "BLAKE3.*", ratio=0.5),
    Target("store", "overhead on disk", ratio=1.0),
    Target("store", "repair .*", "the link", ratio=0.8),
    Target("store", "(samples|first batch), .*", ".+", ratio=1.0),
    Target("aggregate", "median|trimmed-mean", "torch.*", ratio=20.0),
    Target("aggregate", ".*", "a pass over .*", ratio=1 / 1.2),
    Target("aggregate", ".*", "byz.*|krum.*", ratio=5.0),
    Target("byzantine", ".*: points lost to .*", ratio=1.0, params={"default": True, "in_condition": True}),
    Target("byzantine", ".*: worst case, .*", ratio=1.0, params={"default": True, "in_condition": True}),
    Target("byzantine", "step of 4 neighbours, .*", ratio=1 / 1.15),
)
"""As the project set them; a row that none fits has no target."""

HEADLINES = (
    Headline(
        "Fashion-MNIST, 4 ranks, 5 epochs, int8 D-PSGD: accuracy", "train", "accuracy of the averaged model"
    ),
    Headline("bytes sent in that run", "train", "bytes sent by all ranks"),
    Headline("time to 90 %, CNN of 0.4 M", "train", r"time to .* 0\.4 M: .*"),
    Headline("time to 89 %, CNN of 10 M, 1 Gbit/s", "train", r"time to .* 10 M: .*"),
    Headline("time to 3.75 bits per byte, transformer of 5 M", "train", r"time to .* 5 M: .*"),
    Headline("one rank 4x slower, adsgd", "train", "samples with one rank 4x slower, adsgd", best="most"),
    Headline("one rank 4x slower, ad-psgd", "train", "samples with one rank 4x slower, ad-psgd", best="most"),
    Headline(
        "data that differ, 16 ranks: points of the best method's worst rank behind all-reduce, one peer",
        "heterogeneity",
        "worst rank behind all-reduce, best on one-peer-exponential",
    ),
    Headline("the same on a ring", "heterogeneity", "worst rank behind all-reduce, best on ring"),
    Headline("one round of gossip, 40 MB", "gossip", "round, none"),
    Headline("the same, int8", "gossip", "round, int8"),
    Headline("a training step of 10 M parameters, 4 ranks", "gossip", "step, none"),
    Headline("error feedback + int8", "kernels", r"EF [+] int8 encode", {"threads": 1}),
    Headline("error feedback + sign", "kernels", r"EF [+] sign encode", {"threads": 1}),
    Headline("exact top-k", "kernels", "top-k", {"threads": 1}),
    Headline("CHOCO's whole step, int8, with SGD", "kernels", r"choco step int8 [+] SGD", {"threads": 1}),
    Headline("median of 16 vectors, bad ones left out first", "aggregate", "median"),
    Headline("Krum of 16 vectors", "aggregate", "krum"),
    Headline("NNM and trimmed mean of 16 vectors", "aggregate", "nnm[+]trimmed-mean"),
    Headline(
        "3 of 16 ranks lie, data that differ: points of accuracy that the worst of 11 attacks costs",
        "byzantine",
        "complete, Dirichlet 1: points lost to the worst attack, spectral-filter",
    ),
    Headline(
        "a step of robust gossip with 4 neighbours, int8, sealed",
        "byzantine",
        "step of 4 .*: spectral-filter",
    ),
    Headline("one round of gossip over 1 Gbit/s, sealed", "secure", "round at 1gbit, sealed"),
    Headline("the handshakes of 64 peers with each other", "secure", "handshakes of all pairs"),
    Headline("a block committed by 4 ranks, median", "consensus", "commit, p50", {"ranks": 4}),
    Headline("a block verified offline", "consensus", "chain verification", best="most"),
    Headline("training step, ledger on", "consensus", "training step, .*"),
    Headline(
        "a killed rank's neighbours go on, 40 MB, median",
        "recover",
        "kill to the next .*40 MB: median",
        {"topology": "ring"},  # torchft's figure is one of its timeouts; its row says so
    ),
    Headline("the ledger's next epoch without it, worst of 6", "recover", "kill to the epoch .*"),
    Headline("a checkpoint's stall, per step", "recover", "stall of a checkpoint.*"),
    Headline("a host that dies under srun: its neighbours go on, worst of 10", "slurm", "host dies .*"),
    Headline("a host lost under mpirun, 40 MB: to the next step", "recover", "host lost under mpirun .*"),
    Headline("samples through a DataLoader, verified, 2 workers", "store", "samples, 2 workers", best="most"),
    Headline("its first batch", "store", "first batch, 2 workers"),
    Headline("repair from another host over 1 Gbit/s", "store", "repair from another host", best="most"),
    Headline("two ranks more, 40 MB: request to first step", "recover", "request for more ranks .*40 MB"),
)
"""In README's order; those that no file holds are left out."""
