"""The rules of an optimiser, each with the tensors that it works on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pydec.compress.base import Compressor, Vector
from pydec.gossip import Algorithm, Gradients, Mixer, Rule
from pydec.optim.arena import Arena, Span
from pydec.optim.gradients import FlatGradients
from pydec.optim.places import compressor_at
from pydec.optim.plan import Plan


@dataclass
class Part:
    """One rule with what it works on: an arena, or one parameter group's part of it."""

    rule: Rule
    number: int
    group: dict[str, Any]
    gradients: Gradients

    @property
    def lr(self) -> float:
        """The group's learning rate now."""
        return float(self.group.get("lr", 0.0))

    @property
    def weight_decay(self) -> float:
        """The group's weight decay now."""
        return float(self.group.get("weight_decay", 0.0))


class Held(Protocol):
    """Who holds the parts of a model: a rank, or a simulated one."""

    @property
    def parts(self) -> Sequence[Part]:
        """Of the model."""

    def load(self) -> None:
        """Take over what the model has become."""

    def store(self) -> None:
        """Give the model what the vectors have become."""


def take_step(
    held: Held, algorithm: Algorithm, usable: bool, step: Callable[[], float | None]
) -> float | None:
    """The local step, by the rules or by ``step``, with what the algorithm does around it.

    Args:
        held: whose.
        algorithm: of the rules.
        usable: False leaves the step out, because of its gradients.
        step: the wrapped optimiser's.
    """
    loss = None
    held.load()
    for part in held.parts:
        part.rule.before(part.lr)
    if usable:
        if algorithm.takes_step:
            for part in held.parts:
                part.rule.take_step(part.gradients, part.lr, part.weight_decay)
            held.store()
        else:
            if algorithm.needs_gradient:
                for part in held.parts:
                    part.rule.gradient(part.gradients)
            loss = step()
            held.load()
        for part in held.parts:
            part.rule.after(part.lr)
    return loss


def let_judge(held: Held, mixers: Iterable[Mixer], loss: Callable[[], float]) -> None:
    """Give robust rules the loss on the batch of this step; see ``DecentralizedOptimizer.judge``."""
    for mixer in mixers:
        mixer.judge_by(partial(_loss_of, held, mixer.x, loss))


def _loss_of(held: Held, x: Any, loss: Callable[[], float], model: Any) -> float:
    """The loss of other numbers in the place of a vector, which is as before afterwards."""
    own = x.copy()
    try:
        x[...] = model
        held.store()
        return loss()
    finally:
        x[...] = own
        held.store()


def make_parts(plan: Plan, arenas: Sequence[Arena], groups: Sequence[dict[str, Any]]) -> list[Part]:
    """A rule for every arena; for every group's part of it if the equations hold a learning rate."""
    parts: list[Part] = []
    for arena in arenas:
        compressor = compressor_at(arena.place, plan.compressor)
        for piece in pieces_of(arena, groups, by_group=plan.algorithm.needs_lr):
            rule = rule_of(plan, piece, arena.vector[piece.start : piece.stop], compressor)
            gradients = FlatGradients(piece.spans, piece.start, arena.place)
            parts.append(Part(rule, piece.group, groups[piece.group], gradients))
    return parts


@dataclass(frozen=True)
class Piece:
    """Neighbouring tensors of an arena that one rule works on.

    Args:
        spans: the tensors.
        start, stop: where they lie, in elements of the arena.
        group: number of their parameter group; 0 where groups make no difference.
    """

    spans: Sequence[Span]
    start: int
    stop: int
    group: int


def pieces_of(arena: Arena, groups: Sequence[dict[str, Any]], *, by_group: bool) -> list[Piece]:
    """The whole arena, or with ``by_group`` every run of tensors of one parameter group."""
    owner = {id(p): g for g, group in enumerate(groups) for p in group["params"]}
    of = [owner[id(span.tensor)] if by_group else 0 for span in arena.spans]
    cuts = [i for i in range(len(of)) if i == 0 or of[i] != of[i - 1]] + [len(of)]
    starts = [arena.spans[i].start for i in cuts[:-1]] + [len(arena.vector)]
    return [
        Piece(arena.spans[first:last], start, stop, of[first])
        for (first, last), (start, stop) in zip(
            itertools.pairwise(cuts), itertools.pairwise(starts), strict=True
        )
    ]


def rule_of(plan: Plan, piece: Piece, x: Vector, compressor: Compressor) -> Rule:
    """The algorithm's rule for a piece, whose numbers are ``x``."""
    rule = plan.algorithm.rule(x, compressor, plan.topology.degree, plan.local_steps)
    rule.arrange([(span.start - piece.start, *span.matrix) for span in piece.spans])
    return rule
