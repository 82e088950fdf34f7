"""A small model on all ranks at once, with liars: the mixers and attacks of real runs, no network.

Every rank, liars too, takes a step of momentum SGD on its own share. Then each honest rank mixes with its
neighbours' models by the mixer that training uses; liars see the models of this very round before they
answer, which is more than they can in a real run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pydec import gossip, topology
from pydec.aggregate import attacks
from pydec.aggregate.attacks import Scene, fiedler_vector
from pydec.compress.none import Uncompressed
from pydec.gossip import make_robust
from pydec.gossip.base import Mixer
from pydec.train import split
from pydec.train.byzantine import connectivity, most_heard, place
from pydec.train.tasks.fashion_mnist import DIRECTORY, read_idx

from .byzantine_graphs import GRAPHS
from .byzantine_models import CLASSES, MODELS, PIXELS, SIDE
from .byzantine_peers import Endless, Foreign, foreign

ABSENT = "absent"
_TRIES = 4


class _Raw(Uncompressed):
    """Packets are the vectors themselves: thousands are looked at in every round, and nobody sends them."""

    def view(self, payload: Any, n: int) -> Any:
        """The payload."""
        return payload


_PLAIN = _Raw()


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        rule: of the honest ranks; "dpsgd" is plain gossip; of ``byzantine_peers``, with the library's name.
        attack: of the liars; "none" has none, and all ranks are honest; with "absent" they send nothing, so
            that what is lost is what their data would have taught.
        graph, ranks, liars: who is there; a graph of ``byzantine_graphs`` says itself who lies.
        alpha: Dirichlet concentration of the split by label; 0 is iid, and below 0 the first half of the
            honest ranks has the first half of the classes, and the others the rest.
        seed: of split, batches and attacks; the graph and who lies on it stay the same.
        steps, batch, lr, momentum: of local SGD.
        images: training images, the first of Fashion-MNIST's.
        f: what the rule is told; below 0 the most liars that an honest rank hears.
        model: of ``byzantine_models``.
    """

    rule: str
    attack: str
    graph: str
    ranks: int
    liars: int
    alpha: float
    seed: int
    steps: int = 100
    batch: int = 32
    lr: float = 0.02
    momentum: float = 0.9
    images: int = 20_000
    f: int = -1
    model: str = "linear"

    @property
    def key(self) -> str:
        """What tells it from others."""
        return repr(self)

    def f_and_connectivity(self) -> tuple[int, float]:
        """The most liars that an honest rank hears, and the algebraic connectivity of the honest graph."""
        graph, liars = _placed(self.graph, self.ranks, self.liars)
        return most_heard(graph, liars), connectivity(graph, liars)

    def check(self) -> gossip.Algorithm:
        """The algorithm of the honest ranks.

        Raises:
            ConfigError: the graph or f breaks its condition.
        """
        graph, liars = _placed(self.graph, self.ranks, self.liars)
        # Without an attack, too: that is what being careful costs.
        f = most_heard(graph, liars) if self.f < 0 else self.f
        if self.rule == "dpsgd":
            return gossip.make("dpsgd:order=atc")
        algorithm = foreign(self.rule, f) if " " in self.rule else make_robust(self.rule, f)
        if self.graph not in GRAPHS:  # on those, liars hear too few themselves
            algorithm.check(graph, _PLAIN)
        return algorithm


@cache
def _placed(graph: str, ranks: int, liars: int) -> tuple[topology.Topology, tuple[int, ...]]:
    if graph in GRAPHS:
        return GRAPHS[graph]()
    made = topology.make(graph, size=ranks, seed=0)
    return made, place(str(liars), made, 0)


@cache
def data_of(part: str, count: int, folder: str = DIRECTORY) -> tuple[np.ndarray, np.ndarray]:
    """The first images of a part of Fashion-MNIST, (count, 196), and their labels."""
    images = read_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz")[:count].astype(np.float32)
    labels = read_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz")[:count].astype(np.int64)
    # Images are halved: means of 2 x 2 pixels.
    half = images.reshape(-1, SIDE, 2, SIDE, 2).mean(axis=(2, 4)).reshape(-1, PIXELS)
    return ((half / 255 - 0.2860) / 0.3530), labels


def run(cell: Cell, data: Any = None) -> dict[str, Any]:
    """Accuracies in percent: of the honest ranks' mean model, of the worst and of the mean honest rank.

    Args:
        cell: what to run.
        data: (training images, labels), (test images, labels); Fashion-MNIST's if None.
    """
    train, test = data or (data_of("train", cell.images), data_of("t10k", 5000))
    np.random.seed(cell.seed)  # noqa: NPY002 - what a rule of another library draws from
    model = MODELS[cell.model]
    job = _Job(cell)
    shares = _shares(cell, train[1], job.honest)
    velocity = np.zeros_like(job.x)
    draw = np.random.default_rng([cell.seed, 1])
    with np.errstate(invalid="ignore", over="ignore"):  # plain gossip may be driven to infinity
        for t in range(cell.steps):
            rows = np.stack([share[draw.integers(len(share), size=cell.batch)] for share in shares])
            images, labels = train[0][rows], train[1][rows]
            if job.attack is not None and job.attack.flips_labels:
                liars = list(job.liars)
                labels[liars] = CLASSES - 1 - labels[liars]
            velocity = cell.momentum * velocity + model.gradients(job.x, images, labels)
            job.x -= np.float32(cell.lr) * velocity
            try:
                job.mix(t, images, labels)
            except Endless:
                return {"averaged": 0.0, "halves": [0.0, 0.0], "worst": 0.0, "each": 0.0, "distance": np.inf}
        models = job.x[job.honest]
        mean, middle = models.mean(axis=0), len(models) // 2
        halves = [part.mean(axis=0) for part in (models[:middle], models[middle:])]
        each = [model.accuracy(row, *test) for row in models]
        return {
            "averaged": model.accuracy(mean, *test),
            "halves": [model.accuracy(part, *test) for part in halves],
            "worst": min(each),
            "each": float(np.mean(each)),
            "distance": float(np.sqrt(((models - mean) ** 2).sum(axis=1).mean())),
        }


def _shares(cell: Cell, labels: np.ndarray, honest: list[int]) -> list[np.ndarray]:
    if cell.alpha > 0:
        return split.dirichlet(labels, cell.ranks, cell.alpha, cell.seed)
    if not cell.alpha:
        return split.iid(len(labels), cell.ranks, cell.seed)
    halves = [np.flatnonzero(labels < CLASSES // 2), np.flatnonzero(labels >= CLASSES // 2)]
    second = set(honest[len(honest) // 2 :])
    return [halves[rank in second] for rank in range(cell.ranks)]


class _Job:
    """All ranks' models, and what mixes them.

    Attributes:
        x: the models, shape (ranks, parameters).
        liars, honest: the ranks.
        attack: None if nobody lies.
    """

    def __init__(self, cell: Cell) -> None:
        self._algorithm = cell.check()
        drawn = isinstance(self._algorithm, Foreign) and self._algorithm.draws
        self._tries = _TRIES if drawn else 1  # of an answer that is drawn, liars know the mean
        self._graph, placed = _placed(cell.graph, cell.ranks, cell.liars)
        self.liars = placed if cell.attack != "none" else ()
        self._absent = cell.attack == ABSENT
        self.attack = attacks.make(cell.attack) if self.liars and not self._absent else None
        self.honest = [rank for rank in range(cell.ranks) if rank not in self.liars]
        self._model = MODELS[cell.model]
        self.x = np.tile(self._model.start(), (cell.ranks, 1))
        self._mixers = [self._mixer(rank, row) for rank, row in enumerate(self.x)]
        weights = self._graph.weights(0)[np.ix_(self.honest, self.honest)]
        vector = fiedler_vector((weights + weights.T) / 2)
        self._fiedler = dict(zip(self.honest, vector.tolist(), strict=True))
        self._memory: dict[int, dict[str, Any]] = {rank: {} for rank in self.honest}
        self._answers: dict[int, Mixer] = {}  # for lies that are tried
        self._draw = np.random.default_rng([cell.seed, 2])

    def _mixer(self, rank: int, x: np.ndarray) -> Mixer:
        mixer = self._algorithm.mixer(x, _PLAIN, self._graph.degree)
        mixer.place(rank, self._graph)
        return mixer

    def mix(self, t: int, images: np.ndarray, labels: np.ndarray) -> None:
        """A round of gossip; batches are for rules that judge models by them."""
        sent = self.x.copy()
        for rank, mixer in enumerate(self._mixers):
            if self._algorithm.asks_loss:
                mixer.judge = partial(self._model.loss, images=images[rank], labels=labels[rank])
            own, row = self._graph.row(rank, t)
            bodies = {peer: sent[peer] for peer in row}
            if rank in self.liars or self._absent:
                bodies = {peer: body for peer, body in bodies.items() if peer not in self.liars}
            elif self.attack is not None and (bad := [peer for peer in row if peer in self.liars]):
                scene = self._scene(rank, t, own, row, sent, bodies, bad)
                bodies.update(dict.fromkeys(bad, self.attack.craft(scene)))
            _absorb(mixer, sent[rank], bodies, row, t)

    def _scene(
        self, rank: int, t: int, own: float, row: dict[int, float], sent: np.ndarray,
        bodies: dict[int, Any], bad: list[int],
    ) -> Scene:  # fmt: skip
        """What liars know before they answer one victim."""
        known = [rank, *(peer for peer in row if peer not in self.liars)]

        def answer(lie: np.ndarray) -> np.ndarray:
            return np.asarray(np.mean([one(lie).copy() for _ in range(self._tries)], axis=0))

        def one(lie: np.ndarray) -> np.ndarray:
            if rank not in self._answers:
                self._answers[rank] = self._mixer(rank, np.zeros_like(self.x[0]))
            mixer = self._answers[rank]
            mixer.x[:] = sent[rank]
            if self._algorithm.asks_loss:
                mixer.judge = self._mixers[rank].judge
            _absorb(mixer, sent[rank], {**bodies, **dict.fromkeys(bad, lie)}, row, t)
            return mixer.x

        return Scene(
            own=sent[bad[0]],
            honest=sent[known],
            victim=sent[rank],
            weights=np.array([own, *(row[peer] for peer in known[1:])]),
            liar_weight=sum(row[peer] for peer in bad),
            n=1 + len(row),
            f=len(bad),
            place=rank,
            round=t,
            draw=self._draw,
            memory=self._memory[rank],
            rule=answer,
            fiedler=np.array([self._fiedler[peer] for peer in known]),
            fiedler_victim=self._fiedler[rank],
        )


def _absorb(
    mixer: Mixer, own: np.ndarray, bodies: dict[int, np.ndarray], row: dict[int, float], t: int
) -> None:
    mixer.round = t
    peers = sorted(bodies)
    weights = [row[peer] for peer in peers]
    for bucket, (start, stop) in enumerate(mixer.buckets):
        cut = slice(start, stop)
        mixer.absorb(bucket, own[cut], [bodies[peer][cut] for peer in peers], weights)
