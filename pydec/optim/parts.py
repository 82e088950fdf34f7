"""The rules of an optimiser, each with the tensors that it works on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydec.gossip import Rule
from pydec.optim.arena import Arena
from pydec.optim.gradients import FlatGradients
from pydec.optim.places import compressor_at
from pydec.optim.plan import Plan


@dataclass
class Part:
    """One rule with what it works on: an arena, or one parameter group's part of it."""

    rule: Rule
    number: int
    group: dict[str, Any]
    gradients: FlatGradients

    @property
    def lr(self) -> float:
        """The group's learning rate now."""
        return float(self.group.get("lr", 0.0))

    @property
    def weight_decay(self) -> float:
        """The group's weight decay now."""
        return float(self.group.get("weight_decay", 0.0))


def make_parts(plan: Plan, arenas: Sequence[Arena], groups: Sequence[dict[str, Any]]) -> list[Part]:
    """A rule for every arena; for every group's part of it if the equations hold a learning rate."""
    owner = {id(p): g for g, group in enumerate(groups) for p in group["params"]}
    parts: list[Part] = []
    for arena in arenas:
        of = [owner[id(span.tensor)] if plan.algorithm.needs_lr else 0 for span in arena.spans]
        cuts = [i for i in range(len(of)) if i == 0 or of[i] != of[i - 1]] + [len(of)]
        for first, last in itertools.pairwise(cuts):
            spans, start = arena.spans[first:last], arena.spans[first].start
            stop = arena.spans[last].start if last < len(of) else len(arena.vector)
            x = arena.vector[start:stop]
            compressor = compressor_at(arena.place, plan.compressor)
            rule = plan.algorithm.rule(x, compressor, plan.topology.degree, plan.local_steps)
            rule.arrange([(span.start - start, *span.matrix) for span in spans])
            gradients = FlatGradients(spans, start, arena.place)
            parts.append(Part(rule, of[first], groups[of[first]], gradients))
    return parts
