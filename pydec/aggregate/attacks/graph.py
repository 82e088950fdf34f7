"""Attacks on gossip: lies that are made for one victim, and that pull the honest graph apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pydec.aggregate.attacks.base import Answer, Attack, Scene, Vector, attacks
from pydec.errors import ConfigError

_STEPS = 10  # factors of two on each side of the first guess
_REFINED = 8  # points between the neighbours of the best
_AFRESH = 20  # rounds after which the whole range is searched again
_NEAR = 2**0.5  # factor by which the best of the last round is changed in between


@attacks.register("dissensus")
@dataclass(frozen=True)
class Dissensus(Attack):
    """Undo the victim's mixing, and more: x_i - eps sum_k w_ik (x_k - x_i) / sum_b w_ib, k honest, b liars.

    With plain averaging and eps = 1 the victim stays where it is; beyond, it moves away from its neighbours.

    Source: He, Karimireddy, Jaggi, "Byzantine-Robust Decentralized Learning via ClippedGossip", 2022,
    arXiv:2202.01545, definition D.
    """

    eps: float = 1.5

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        x = scene.origin
        if scene.weights is None or not scene.liar_weight > 0:
            return x - np.float32(self.eps) * (scene.mean() - x)
        pull = (scene.weights.astype(np.float32) @ (scene.honest - x)).astype(np.float32)
        return x - np.float32(self.eps / scene.liar_weight) * pull


@attacks.register("spectral")
@dataclass(frozen=True)
class Spectral(Attack):
    """Push the sides of the honest graph's weakest cut off: x_i + c v_i sum_k v_k x_k, v the Fiedler vector.

    Args:
        scale: c; 0 looks for the c that moves the victim farthest, as ``SparseALIE`` does, where its rule is
            known, and else takes 1.

    Source: Gaucher, Dieuleveut, Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML
    2025, arXiv:2410.10418 (spectral heterogeneity).
    """

    needs_graph: ClassVar[bool] = True
    scale: float = 0.0

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        if scene.fiedler is None:
            raise ConfigError(
                "the spectral attack needs the honest graph; use it in gossip, on a static graph"
            )
        along = (scene.fiedler.astype(np.float32) @ scene.honest).astype(np.float32)
        direction = np.float32(scene.fiedler_victim) * along
        return _farthest(scene, direction, self.scale, 1.0)


@attacks.register("sparse-alie")
@dataclass(frozen=True)
class SparseALIE(Attack):
    """Send x_i + c times a direction, seen from the victim: minus the deviation (alie), or the mean (ipm).

    Args:
        scale: c; 0 looks for the c that moves the victim farthest from where honest neighbours alone would
            take it, where its rule is known, and else takes 1.5. The whole range is searched every 20 rounds,
            and the neighbourhood of the last c in between.
        direction: which.

    Source: Gaucher, Dieuleveut, Hendrikx, "Unified Breakdown Analysis for Byzantine Robust Gossip", ICML
    2025, arXiv:2410.10418, section 5. (Their code looks for the largest result, not the largest deviation.)
    """

    scale: float = 0.0
    direction: Literal["alie", "ipm"] = "alie"

    def craft(self, scene: Scene) -> Vector:
        """See ``Attack.craft``."""
        direction = -scene.deviation() if self.direction == "alie" else -scene.mean()
        return _farthest(scene, direction, self.scale, 1.5)


def _farthest(scene: Scene, direction: Vector, scale: float, otherwise: float) -> Vector:
    origin = scene.origin

    def lie(c: float) -> Vector:
        return origin + np.float32(c) * direction

    if scale or scene.rule is None:
        return lie(scale or otherwise)
    memory = scene.memory
    near = memory["scale"] if scene.round < memory.get("afresh", 0) else None
    memory["scale"] = strongest(scene.rule, lie, honest_result(scene), near)
    if near is None:
        memory["afresh"] = scene.round + _AFRESH
    return lie(memory["scale"])


def honest_result(scene: Scene) -> Vector:
    """Where plain averaging with honest neighbours takes the victim; the liars' weight goes to itself."""
    if scene.weights is None:
        return scene.mean()
    weights = scene.weights.astype(np.float32)
    kept = np.float32(1.0) - weights.sum(dtype=np.float32)
    return np.asarray(weights @ scene.honest + kept * scene.origin, dtype=np.float32)


def strongest(
    rule: Answer, lie: Callable[[float], Vector], target: Vector, near: float | None = None
) -> float:
    """The c for which the rule's answer to ``lie(c)`` is farthest from the target.

    Powers of two from 2^-10 to 2^10, then eight points between the neighbours of the best. An answer that is
    not finite counts as farthest.

    Args:
        rule: the victim's.
        lie: the vector for a c.
        target: where the victim would be without liars.
        near: look only here, and at a factor of sqrt(2) on each side.
    """

    def moved(c: float) -> float:
        distance = float(np.linalg.norm(rule(lie(c)) - target))
        return distance if np.isfinite(distance) else np.inf

    if near is not None:
        return max([near, near / _NEAR, near * _NEAR], key=moved)
    tried = [2.0**k for k in range(-_STEPS, _STEPS + 1)]
    best = max(tried, key=moved)
    nearby: list[float] = np.linspace(best / 2, best * 2, _REFINED).tolist()
    return max([best, *nearby], key=moved)


def fiedler_vector(adjacency: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eigenvector of the second smallest eigenvalue of a graph's Laplacian; its largest entry is positive.

    Args:
        adjacency: symmetric weights, shape (n, n), n >= 2; the diagonal is ignored.
    """
    weights = adjacency - np.diag(np.diagonal(adjacency))
    _, vectors = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights)
    v = vectors[:, 1]
    return np.asarray(v * np.sign(v[np.argmax(np.abs(v))]))
