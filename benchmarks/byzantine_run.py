"""Softmax regression on all ranks at once, with liars: the mixers and attacks of real runs, no network.

Every rank, liars too, takes a step of momentum SGD on its own share; the gradients of all ranks are one
batched matrix product. Then each honest rank mixes with its neighbours' models by the mixer that training
uses; liars see the models of this very round before they answer, which is more than they can in a real run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pydec import compress, gossip, topology
from pydec.aggregate import attacks
from pydec.aggregate.attacks import Scene, fiedler_vector
from pydec.gossip import make_robust
from pydec.gossip.base import Mixer
from pydec.train import split
from pydec.train.byzantine import most_heard, place
from pydec.train.tasks.fashion_mnist import DIRECTORY, read_idx

PIXELS, CLASSES = 784, 10
_PLAIN = compress.make("none")


@dataclass(frozen=True)
class Cell:
    """One run.

    Args:
        rule: of the honest ranks; "dpsgd" is plain gossip.
        attack: of the liars; "none" has none, and all ranks are honest.
        graph, ranks, liars: who is there.
        alpha: Dirichlet concentration of the split by label; 0 is iid.
        seed: of split, batches and attacks.
        steps, batch, lr, momentum: of local SGD.
        images: training images, the first of Fashion-MNIST's.
    """

    rule: str
    attack: str
    graph: str
    ranks: int
    liars: int
    alpha: float
    seed: int
    steps: int = 300
    batch: int = 32
    lr: float = 0.02
    momentum: float = 0.9
    images: int = 20_000

    @property
    def key(self) -> str:
        """What tells it from others."""
        return repr(self)

    def check(self) -> gossip.Algorithm:
        """The algorithm of the honest ranks.

        Raises:
            ConfigError: the graph or f breaks its condition.
        """
        graph = topology.make(self.graph, size=self.ranks, seed=self.seed)
        # Without an attack the rule is as careful as with one: that is what robustness costs.
        f = most_heard(graph, place(str(self.liars), graph, self.seed))
        algorithm = gossip.make("dpsgd:order=atc") if self.rule == "dpsgd" else make_robust(self.rule, f)
        algorithm.check(graph, _PLAIN)
        return algorithm


@cache
def _data(part: str, count: int, folder: str = DIRECTORY) -> tuple[np.ndarray, np.ndarray]:
    images = read_idx(Path(folder) / f"{part}-images-idx3-ubyte.gz")[:count].reshape(-1, PIXELS)
    labels = read_idx(Path(folder) / f"{part}-labels-idx1-ubyte.gz")[:count].astype(np.int64)
    return ((images.astype(np.float32) / 255 - 0.2860) / 0.3530), labels


def run(cell: Cell, data: Any = None) -> dict[str, Any]:
    """Accuracies in percent: of the honest ranks' mean model, of the worst and of the mean honest rank.

    Args:
        cell: what to run.
        data: (training images, labels), (test images, labels); Fashion-MNIST's if None.
    """
    train, test = data or (_data("train", cell.images), _data("t10k", 5000))
    algorithm = cell.check()
    graph = topology.make(cell.graph, size=cell.ranks, seed=cell.seed)
    liars = place(str(cell.liars), graph, cell.seed) if cell.attack != "none" else ()
    attack = attacks.make(cell.attack) if liars else None
    honest = [rank for rank in range(cell.ranks) if rank not in liars]
    shares = (
        split.dirichlet(train[1], cell.ranks, cell.alpha, cell.seed)
        if cell.alpha
        else split.iid(len(train[1]), cell.ranks, cell.seed)
    )
    x = np.zeros((cell.ranks, (PIXELS + 1) * CLASSES), np.float32)
    velocity = np.zeros_like(x)
    mixers = [algorithm.mixer(row, _PLAIN, graph.degree) for row in x]
    for rank, mixer in enumerate(mixers):
        mixer.place(rank, graph)
    weights = graph.weights(0)[np.ix_(honest, honest)]
    fiedler = dict(zip(honest, fiedler_vector((weights + weights.T) / 2).tolist(), strict=True))
    memory: dict[int, dict[str, Any]] = {rank: {} for rank in honest}
    draw = np.random.default_rng([cell.seed, 1])
    for t in range(cell.steps):
        rows = np.stack([share[draw.integers(len(share), size=cell.batch)] for share in shares])
        labels = train[1][rows]
        if attack is not None and attack.flips_labels:
            labels[list(liars)] = CLASSES - 1 - labels[list(liars)]
        velocity = cell.momentum * velocity + _gradient(x, train[0][rows], labels)
        x -= np.float32(cell.lr) * velocity
        _mix(cell, algorithm, graph, x, mixers, liars, attack, fiedler, memory, t)
    mean = x[honest].mean(axis=0)
    each = [_accuracy(row, *test) for row in x[honest]]
    spread = float(np.sqrt(((x[honest] - mean) ** 2).sum(axis=1).mean()))
    return {
        "averaged": _accuracy(mean, *test),
        "worst": min(each),
        "each": float(np.mean(each)),
        "distance": spread,
    }


def _mix(
    cell: Cell,
    algorithm: gossip.Algorithm,
    graph: topology.Topology,
    x: np.ndarray,
    mixers: list[Mixer],
    liars: tuple[int, ...],
    attack: attacks.Attack | None,
    fiedler: dict[int, float],
    memory: dict[int, dict[str, Any]],
    t: int,
) -> None:
    sent = x.copy()
    packets = [_packed(row) for row in sent]
    for rank, mixer in enumerate(mixers):
        own, row = graph.row(rank, t)
        bodies = {peer: packets[peer] for peer in row}
        if rank in liars:
            bodies = {peer: body for peer, body in bodies.items() if peer not in liars}
        elif attack is not None and (bad := [peer for peer in row if peer in liars]):
            known = [rank, *(peer for peer in row if peer not in liars)]
            scene = Scene(
                own=sent[bad[0]],
                honest=sent[known],
                victim=sent[rank],
                weights=np.array([own, *(row[peer] for peer in known[1:])]),
                liar_weight=sum(row[peer] for peer in bad),
                n=1 + len(row),
                f=len(bad),
                place=rank,
                round=t,
                draw=np.random.default_rng([cell.seed, t, rank]),
                memory=memory[rank],
                fiedler=np.array([fiedler[peer] for peer in known]),
                fiedler_victim=fiedler[rank],
            )
            scene.rule = _Answer(algorithm, graph, sent[rank], bodies, bad, rank, row, t)
            lie = _packed(attack.craft(scene))
            bodies.update(dict.fromkeys(bad, lie))
        _absorb(mixer, packets[rank], bodies, row, t)


class _Answer:
    """What the victim makes of a lie."""

    def __init__(
        self,
        algorithm: gossip.Algorithm,
        graph: topology.Topology,
        own: np.ndarray,
        bodies: dict[int, Any],
        bad: list[int],
        rank: int,
        row: dict[int, float],
        t: int,
    ) -> None:
        self._x, self._own = own.copy(), own
        self._mixer = algorithm.mixer(self._x, _PLAIN, graph.degree)
        self._mixer.place(rank, graph)
        self._packet, self._bodies, self._bad, self._row, self._t = _packed(own), bodies, bad, row, t

    def __call__(self, lie: np.ndarray) -> np.ndarray:
        self._x[:] = self._own
        bodies = {**self._bodies, **dict.fromkeys(self._bad, _packed(lie))}
        _absorb(self._mixer, self._packet, bodies, self._row, self._t)
        return self._x


def _absorb(mixer: Mixer, own: Any, bodies: dict[int, Any], row: dict[int, float], t: int) -> None:
    mixer.round = t
    head = len(own) - 4 * len(mixer.x)
    peers = sorted(bodies)
    for bucket, (start, stop) in enumerate(mixer.buckets):
        if stop - start == len(mixer.x):
            mine, theirs = own, [bodies[peer] for peer in peers]
        else:
            cut = slice(head + 4 * start, head + 4 * stop)
            mine, *theirs = (
                _packed(body[cut].view(np.float32)) for body in (own, *(bodies[p] for p in peers))
            )
        mixer.absorb(bucket, mine, theirs, [row[peer] for peer in peers])


def _packed(x: np.ndarray) -> np.ndarray:
    out = np.empty(_PLAIN.max_bytes(len(x)), np.uint8)
    _PLAIN.encode_into(np.ascontiguousarray(x, np.float32), out)
    return out


def _gradient(x: np.ndarray, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of the mean cross entropy, for every rank: (n, d), (n, batch, 784), (n, batch) to (n, d)."""
    logits = (
        np.matmul(images, x[:, : PIXELS * CLASSES].reshape(-1, PIXELS, CLASSES))
        + x[:, None, PIXELS * CLASSES :]
    )
    with np.errstate(invalid="ignore", over="ignore"):
        error = np.exp(logits - logits.max(axis=2, keepdims=True))
        error /= error.sum(axis=2, keepdims=True)
    np.put_along_axis(error, labels[..., None], np.take_along_axis(error, labels[..., None], 2) - 1, 2)
    error /= labels.shape[1]
    matrix = np.matmul(images.transpose(0, 2, 1), error).reshape(len(x), -1)
    return np.concatenate([matrix, error.sum(axis=1)], axis=1)


def _accuracy(row: np.ndarray, images: np.ndarray, labels: np.ndarray) -> float:
    logits = images @ row[: PIXELS * CLASSES].reshape(PIXELS, CLASSES) + row[PIXELS * CLASSES :]
    right = logits.argmax(axis=1) == labels
    return 100 * float(right.mean()) if np.isfinite(logits).all() else 0.0
