"""Ranks that lie in a training run, and the rule that the others use: ``--byzantine``, ``--aggregate``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from pydec import gossip
from pydec.aggregate import Counts, attacks
from pydec.aggregate.attacks import Attack
from pydec.comm.view import View
from pydec.errors import ConfigError
from pydec.gossip import Algorithm, make_robust
from pydec.gossip.robust import RPEL, default_rule
from pydec.gossip.robust.lying import MOST_RANKS, Lying
from pydec.optim import DecentralizedOptimizer
from pydec.peer import Peer
from pydec.topology.base import Topology, topologies
from pydec.train.batches import Batches, labels_of
from pydec.train.config import TrainConfig
from pydec.train.progress import Progress
from pydec.train.task import Task
from pydec.train.together import table

_DRAWS = 500  # placements of the liars that are compared
_MOST_COMPARED = 256  # ranks up to which they are: each takes the eigenvalues of a matrix of that size
_MOST_SOLVED = 2048  # ranks of a graph whose connectivity is found
_ROUNDS = 8  # of a graph that never repeats, in which liars among neighbours are counted
_CONNECTED = 1e-9


@dataclass(frozen=True)
class Byzantine:
    """What is robust about a run.

    Args:
        algorithm: as honest ranks run it.
        ranks: those that lie, in order.
        attack: what they send; None if nobody lies.
        spec: of the attack.
        f: the most liars that any honest rank hears.
        connectivity: algebraic connectivity of the honest ranks' graph, edges of weight 1; None if the graph
            changes from round to round.
        seed: what attacks draw from.
    """

    algorithm: Algorithm
    ranks: tuple[int, ...]
    attack: Attack | None
    spec: str
    f: int
    connectivity: float | None
    seed: int

    def algorithm_of(self, rank: int) -> Algorithm:
        """What that rank runs."""
        if rank not in self.ranks or self.attack is None:
            return self.algorithm
        return Lying(self.algorithm, self.attack, self.ranks, self.seed)

    def mark(self, optimizer: DecentralizedOptimizer, batches: Batches, task: Task, rank: int) -> None:
        """Liars count in no mean; those that flip labels train on wrong ones.

        Raises:
            ConfigError: labels are to be flipped, and the task has none.
        """
        if not self.ranks:
            return
        optimizer.honest = rank not in self.ranks
        if self.attack is not None and self.attack.flips_labels:
            classes = int(labels_of(task.train, task.labels).max()) + 1
            if rank in self.ranks:
                batches.flipped = classes

    def words(self) -> str:
        """Lines for the terminal, labels aligned."""
        lines = [f"robust          {self.algorithm!r}"]
        if self.ranks:
            ranks = ", ".join(map(str, self.ranks))
            lines.append(
                f"byzantine       ranks {ranks} send {self.spec}; an honest one hears at most {self.f}"
            )
        if self.connectivity is not None and self.ranks:
            lines.append(
                f"honest graph    algebraic connectivity {self.connectivity:.3g}; no rule that bounds single "
                f"neighbours is safe where it is below about 2 f = {2 * self.f}"
            )
        return "\n".join(lines)

    def found(self, peer: Peer, left_out: Counts, progress: Progress) -> dict[str, Any]:
        """What a summary says: all ranks together."""
        mine = asdict(Counts() if peer.rank in self.ranks else left_out)
        rows = table(peer, [float(value) for value in mine.values()]).sum(axis=0)
        counts = dict(zip(mine, rows.tolist(), strict=True))
        given, taken = counts.pop("given"), counts.pop("taken")
        result = {
            "ranks": list(self.ranks),
            "attack": self.spec,
            "rule": repr(self.algorithm),
            "left_out": {name: round(value) for name, value in counts.items()},
        }
        if not self.algorithm.robust:
            return result
        return result | {
            "left_out_weight": round(1.0 - taken / given, 4) if given else None,
            "distance_growth": round(progress.growth, 4) if math.isfinite(progress.growth) else None,
            "growth_since": progress.early[0],
        }


class Seat(Protocol):
    """What is asked of a peer to find out who lies."""

    size: int
    view: View


def robustness(config: TrainConfig, peer: Seat) -> Byzantine | None:
    """What the options ask for; None if for nothing of this kind.

    Args:
        config: with ``byzantine``, ``attack`` and ``aggregate``.
        peer: any of the run.

    Raises:
        ConfigError: they do not go together, with the graph or the number of ranks.
    """
    if not config.aggregate and not config.byzantine:
        algorithm = gossip.make(config.algorithm)
        return Byzantine(algorithm, (), None, "", 0, None, 0) if algorithm.robust else None
    if topologies.takes(config.topology, "nodes"):
        raise ConfigError(
            f"--byzantine and --aggregate count liars among single neighbours, and {config.topology} "
            "averages nodes first; use another topology, such as random-regular:degree=6"
        )
    topology = topologies.make(config.topology, size=peer.size, seed=peer.view.seed, nodes=None)
    ranks = place(config.byzantine, topology, config.seed)
    f = most_heard(topology, ranks)
    algorithm = _algorithm(config, topology, ranks, f)
    attack = attacks.make(config.attack or "alie") if ranks else None
    if attack is not None and attack.needs_graph and (not topology.is_static or peer.size > MOST_RANKS):
        raise ConfigError(
            f"--attack {config.attack} aims at the weakest cut of the honest ranks' graph, which must stay "
            f"and have at most {MOST_RANKS} ranks, and {config.topology} has {peer.size} or changes from "
            "round to round; use complete or random-regular:degree=6, or another attack, such as sparse-alie"
        )
    solved = topology.is_static and peer.size <= _MOST_SOLVED
    mu = connectivity(topology, ranks) if solved else None
    if mu is not None and mu < _CONNECTED and peer.size - len(ranks) > 1:
        raise ConfigError(
            f"ranks {', '.join(map(str, ranks))} cut {topology.name} of {peer.size} ranks in parts that "
            "hear of one another from liars only; place others with --byzantine RANK,RANK"
        )
    return Byzantine(algorithm, ranks, attack, config.attack or "alie", f, mu, config.seed)


def _algorithm(config: TrainConfig, topology: Topology, ranks: Sequence[int], f: int) -> Algorithm:
    if not config.aggregate:
        return gossip.make(config.algorithm)
    wanted = f if ranks else None
    spec = config.aggregate
    if spec == "auto":
        spec = default_rule(topology, f or 1)
    made = make_robust(spec, wanted)
    if isinstance(made, RPEL) and ranks:
        made = make_robust(spec, len(ranks))
    if made.f < f:
        raise ConfigError(
            f"--aggregate {config.aggregate} tolerates f={made.f} liars among the neighbours of a rank, and "
            f"some rank hears {f} of ranks {', '.join(map(str, ranks))}; use f={f}, or a denser graph"
        )
    return made


def place(text: str, topology: Topology, seed: int) -> tuple[int, ...]:
    """The ranks that lie: those that are named, or as many, where they are fewest around any honest rank.

    Args:
        text: a number, or ranks with commas; "" for nobody.
        topology: of the run.
        seed: of the placements that are compared.

    Raises:
        ConfigError: no such ranks, or no honest one is left.
    """
    size = topology.size
    if "," in text:
        ranks = tuple(sorted({int(word) for word in text.split(",") if word.strip()}))
        if not all(0 <= rank < size for rank in ranks):
            raise ConfigError(f"--byzantine {text} names ranks of 0 to {size - 1}, of which there are {size}")
    else:
        count = int(text or 0)
        ranks = () if not count or count >= size else _drawn(topology, count, seed)
        if count >= size:
            raise ConfigError(f"--byzantine {count} leaves none of {size} ranks honest")
    if len(ranks) >= size:
        raise ConfigError(f"--byzantine {text} leaves none of {size} ranks honest")
    return ranks


def _drawn(topology: Topology, count: int, seed: int) -> tuple[int, ...]:
    draw = np.random.default_rng([seed, count])
    best: tuple[tuple[int, float], tuple[int, ...]] | None = None
    compared = topology.is_static and topology.size <= _MOST_COMPARED
    for _ in range(_DRAWS if compared else 1):
        ranks = tuple(sorted(draw.choice(topology.size, count, replace=False).tolist()))
        if not compared:
            return ranks
        apart = connectivity(topology, ranks) < _CONNECTED
        score = (most_heard(topology, ranks) + topology.size * apart, 0.0)
        if best is None or score < best[0]:
            best = score, ranks
    assert best is not None
    return best[1]


def most_heard(topology: Topology, ranks: Sequence[int]) -> int:
    """The most liars that any honest rank hears in a round."""
    bad = set(ranks)
    rounds = range(topology.period or _ROUNDS)
    honest = [rank for rank in range(topology.size) if rank not in bad]
    return max(len(bad & {*topology.neighbors(rank, t)}) for t in rounds for rank in honest)


def connectivity(topology: Topology, ranks: Sequence[int]) -> float:
    """Second smallest eigenvalue of the Laplacian of the honest ranks' graph, edges of weight 1."""
    honest = [rank for rank in range(topology.size) if rank not in set(ranks)]
    if len(honest) < 2:
        return 0.0
    edges = (topology.weights(0)[np.ix_(honest, honest)] > 0).astype(float)
    np.fill_diagonal(edges, 0.0)
    edges = np.maximum(edges, edges.T)
    return float(np.linalg.eigvalsh(np.diag(edges.sum(axis=1)) - edges)[1])
