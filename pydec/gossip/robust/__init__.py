"""Robust gossip: rules that bound what liars among the neighbours can do."""

from __future__ import annotations

from pydec.errors import ConfigError
from pydec.gossip.base import robust_rules
from pydec.gossip.robust.base import Heard, RobustAlgorithm, RobustMixer, fewest_neighbours
from pydec.gossip.robust.clipping import ClippedGossip, CSPlus
from pydec.gossip.robust.filtering import SpectralFilter
from pydec.gossip.robust.nearest import (
    UBAR,
    Balance,
    GeometricTrimmedSum,
    IterativeOutlierScissor,
    NearestNeighbourAverage,
)
from pydec.gossip.robust.sets import RPEL, Bridge, NeighbourhoodAverage, SetMixer, SetRule
from pydec.topology.base import Topology

__all__ = [
    "RPEL",
    "UBAR",
    "Balance",
    "Bridge",
    "CSPlus",
    "ClippedGossip",
    "GeometricTrimmedSum",
    "Heard",
    "IterativeOutlierScissor",
    "NearestNeighbourAverage",
    "NeighbourhoodAverage",
    "RobustAlgorithm",
    "RobustMixer",
    "SetMixer",
    "SetRule",
    "SpectralFilter",
    "default_rule",
    "make",
    "robust_rules",
]


def make(spec: str, f: int | None = None) -> RobustAlgorithm:
    """Build robust gossip from its specification: a rule of ``robust_rules``, or one of ``pydec.aggregate``.

    Args:
        spec: such as "cs-plus:f=2", "nnm+trimmed-mean:f=2", "median".
        f: for specifications that do not say.

    Raises:
        ConfigError: unknown name or option, or a value outside its range.
    """
    name, _, options = spec.partition(":")
    given = any(item.partition("=")[0].strip() == "f" for item in options.split(","))
    if name.strip() not in robust_rules:
        made = NeighbourhoodAverage(f=1 if f is None else f, spec=spec)
        told = made.pipeline().f
        return made if told == made.f else NeighbourhoodAverage(f=told, spec=spec)
    if f is not None and not given:
        spec = f"{spec}{',' if options else ':'}f={f}"
    made_rule = robust_rules.make(spec)
    if not isinstance(made_rule, RobustAlgorithm):
        raise ConfigError(f"{spec!r} is no robust rule; pydec list robust names them")
    return made_rule


def default_rule(topology: Topology, f: int) -> str:
    """The rule that ``auto`` takes.

    Returns:
        "spectral-filter" where every rank hears more than 3 f others, "cs-plus" where more than 2 f, else
        "clipped-gossip".
    """
    _, m = fewest_neighbours(topology)
    return "spectral-filter" if m > 3 * f else "cs-plus" if m > 2 * f else "clipped-gossip"
