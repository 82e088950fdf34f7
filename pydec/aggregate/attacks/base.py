"""What an attack is: the vector that liars send to one victim, made of all that they know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pydec.registry import Registry

Vector = NDArray[np.float32]
Answer = Callable[[Vector], Vector]
"""What the victim makes of its round if all its liars send that vector."""


@dataclass
class Scene:
    """What the liars, who work together, know when they make a vector for one victim.

    Args:
        own: what the liar would send if it were honest, shape (d,).
        honest: honest vectors that it knows, shape (h, d): those of the victim's honest neighbours,
            and the victim's.
        victim: the victim's vector; None where the victim is a server that has none.
        weights: what the victim gives to each row of ``honest``; its own row included.
        liar_weight: what it gives to all liars together.
        n: vectors that the victim averages.
        f: how many of them are lies.
        place: the victim's number among the liar's listeners.
        round: of gossip.
        draw: random numbers of this liar, round and victim.
        memory: kept from round to round for this liar, or for one victim of it.
        rule: what the victim's rule answers to a vector; None if that is not known.
        fiedler: an entry of the Fiedler vector of the honest graph for every row of ``honest``.
        fiedler_victim: the victim's entry.
    """

    own: Vector
    honest: Vector
    victim: Vector | None = None
    weights: NDArray[np.float64] | None = None
    liar_weight: float = 0.0
    n: int = 0
    f: int = 1
    place: int = 0
    round: int = 0
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    memory: dict[str, Any] = field(default_factory=dict)
    rule: Answer | None = None
    fiedler: NDArray[np.float64] | None = None
    fiedler_victim: float = 0.0

    def mean(self) -> Vector:
        """Of the honest vectors, coordinate by coordinate."""
        return np.asarray(self.honest.mean(axis=0, dtype=np.float32))

    def deviation(self) -> Vector:
        """Standard deviation of the honest vectors, coordinate by coordinate."""
        return np.asarray(self.honest.std(axis=0, dtype=np.float32))

    @property
    def origin(self) -> Vector:
        """Where lies that hide near the victim begin: its own vector, or the honest mean."""
        return self.mean() if self.victim is None else self.victim


class Attack(ABC):
    """A way to lie. Keeps nothing itself; ``Scene.memory`` is for that."""

    flips_labels: ClassVar[bool] = False
    """Whether the liar trains on wrong labels, c - 1 - y of c classes."""
    needs_graph: ClassVar[bool] = False
    """Whether ``Scene.fiedler`` must be there: the honest ranks' graph is known, and stays."""

    @abstractmethod
    def craft(self, scene: Scene) -> Vector:
        """The vector to send, float32, shape (d,); not the memory of ``scene``'s own vectors."""


attacks: Registry[Attack] = Registry("attack")
