"""Lies that robust averages must survive, by name."""

from __future__ import annotations

from pydec.aggregate.attacks import graph, hidden, plain
from pydec.aggregate.attacks.base import Attack, Scene, attacks
from pydec.aggregate.attacks.graph import fiedler_vector

__all__ = ["Attack", "Scene", "attacks", "fiedler_vector", "graph", "hidden", "make", "plain"]


def make(spec: str) -> Attack:
    """Build an attack from its specification, for example ``alie:z=1.5``.

    Raises:
        ConfigError: unknown name or option, or a value out of its range.
    """
    return attacks.make(spec)
