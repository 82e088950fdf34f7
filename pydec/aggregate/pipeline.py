"""Pre-aggregations and a rule, one after the other, on the vectors that are fit for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np

from pydec import kernels
from pydec.aggregate.base import Aggregator, Part, PreAggregator, aggregators, preaggregators
from pydec.aggregate.inputs import Inputs, Matrix, Weights
from pydec.aggregate.screen import Counts, Screen
from pydec.aggregate.views import checked, detached, gram_of, room_like, squared_of, views_of
from pydec.errors import ConfigError, TooFewVectors

V = TypeVar("V")


class Pipeline:
    """A robust average of vectors, made by ``pydec.aggregate.make``; call it with a list of them.

    Args:
        spec: its specification, for messages.
        before: steps before the rule, in order.
        rule: the rule.
        screen: which vectors count.
        seed: what random steps draw from, with the number of the call.

    Attributes:
        counts: what was left out so far.
    """

    def __init__(
        self, spec: str, before: Sequence[PreAggregator], rule: Aggregator, screen: Screen, seed: int = 0
    ) -> None:
        self.spec = spec
        self.before = tuple(before)
        self.rule = rule
        self.screen = screen
        self.seed = seed
        self.counts = Counts()
        self.calls = 0
        self._geometric = any(part.geometric for part in (*self.before, rule))
        self._names = [_name(part) for part in (*self.before, rule)]

    def __repr__(self) -> str:
        return f"<aggregate {self.spec}>"

    @property
    def f(self) -> int:
        """Vectors that may be anything, as the parts were told."""
        return max(part.f for part in (*self.before, self.rule))

    def check(self, n: int) -> None:
        """Raise ConfigError, with the numbers, if n vectors are too few for f."""
        for part, name in zip((*self.before, self.rule), self._names, strict=True):
            part.check(n, part.f, name)
            n = part.left(n) if isinstance(part, PreAggregator) else n

    def most(self, n: int) -> int:
        """The largest f that n vectors allow all parts; negative if n is too few for any."""
        allowed = []
        for part in (*self.before, self.rule):
            allowed.append(part.most(n))
            n = part.left(n) if isinstance(part, PreAggregator) else n
        return min(allowed)

    def lowered(self, f: int) -> Pipeline:
        """The same with no part's f above that; it counts where this one does."""
        if f >= self.f:
            return self
        before = [replace(part, f=min(part.f, f)) for part in self.before]
        made = Pipeline(self.spec, before, replace(self.rule, f=min(self.rule.f, f)), self.screen, self.seed)
        made.counts = self.counts
        return made

    def __call__(
        self,
        vectors: Sequence[V],
        own: V | None = None,
        *,
        ages: Sequence[int] | None = None,
        out: V | None = None,
    ) -> V:
        """The average.

        Vectors that are not finite, too large or too old are left out first and counted. Those that no honest
        rank sends (``Screen.proven``) were among the f, so of the rest f less their number may be anything:
        the rule is told that. With too few for it the own model is given back, and counted.

        Tensors on one GPU stay there: kernels measure and average them, and n x n numbers alone are fetched.

        Args:
            vectors: n >= 1 vectors of shape (d,), contiguous, all float32, float64, float16 or bfloat16; on a
                GPU float32, and at most 256.
            own: the own model, of the same type and shape: distances are taken after subtracting it. It may
                be one of the vectors, and counts as one only then.
            ages: how many rounds old each vector is, for ``Screen.max_age``.
            out: shape (d,), overwritten; may be one of the vectors. Allocated if None, of the kind of the
                first vector.

        Returns:
            ``out``.

        Raises:
            ConfigError: n vectors are too few for f.
            TypeError: a vector's type is none of these, or not that of the first; on a GPU, not float32.
            ValueError: vectors of different lengths or on different devices, or no vector.
            TooFewVectors: too few are left, and there is no own model to keep.
        """
        views = checked(vectors, own, out)
        self.check(len(views))
        self.calls += 1
        mine = None if own is None else views_of([own])[0]
        into: Any = room_like(detached(vectors[0]), len(views[0])) if out is None else detached(out)
        if ages is None and self._at_once(views, mine, into):
            return cast(V, into)
        fresh = self.screen.fresh(len(views), ages, self.counts)
        kept, mine, gram, squared, proven = self._sound([views[k] for k in fresh], mine)
        f = max(0, self.f - proven)
        if not kept or self.most(len(kept)) < f:
            self._keep(mine, into, len(views), len(kept))
        else:
            x = Inputs(kept, mine, gram, squared=squared)
            draw = np.random.Generator(np.random.PCG64([self.seed, self.calls]))
            for part in self.before:
                x = x.mixed(part.matrix(x, min(part.f, f), draw))
            self.rule.reduce(x, min(self.rule.f, f), into)
        return cast(V, into)

    def _at_once(self, views: list[Any], own: Any, out: Any) -> bool:
        """Average in the one pass that also finds that all vectors count; False if some may not.

        No vector of d elements is longer than sqrt(d) times the largest magnitude, and none farther from the
        own model than that and its length. What may be an input is not written on trial.
        """
        kernel, to = self.rule.kernel, views_of([out])[0]
        inputs = views if own is None else [*views, own]
        if kernel is None or self.before or not all(isinstance(view, np.ndarray) for view in (*inputs, to)):
            return False
        if any(np.may_share_memory(view, to) for view in inputs):
            return False
        largest = np.empty(1)
        kernel(views, self.rule.f, to, largest)
        reach = len(to) ** 0.5 * float(largest[0]) + (0.0 if own is None else kernels.sqnorm(own) ** 0.5)
        return bool(reach <= self.screen.max_norm)

    def _sound(self, views: list[Any], own: Any) -> tuple[list[Any], Any, Matrix | None, Weights | None, int]:
        """The vectors that count, the own model, their Gram matrix about it if asked for, its diagonal.

        And how many are proven to be of the f: none where the own model is no measure of the others.
        """
        if not views:
            return [], own, None, None, 0
        gram: Matrix | None = None
        lost = own is not None and int(kernels.count_nonfinite(own)) > 0
        if lost:
            own = None  # nothing can be measured from it, nor is it worth keeping
        if self._geometric:
            gram = gram_of(views, own)
            squared = np.diagonal(gram)
        else:
            squared = squared_of(views, own)
        finite = np.isfinite(squared)
        for k in np.flatnonzero(~finite):
            finite[k] = int(kernels.count_nonfinite(views[k])) == 0  # of float64, squares alone may overflow
        sound = self.screen.sound(squared, finite, self.counts)
        proven = 0 if lost else self.screen.proven(squared, finite)
        if sound.all():
            return views, own, gram, squared, proven
        where = np.flatnonzero(sound)
        if gram is not None:
            gram = gram[np.ix_(where, where)]
        return [views[k] for k in where], own, gram, squared[where], proven

    def _keep(self, own: Any, out: Any, n: int, left: int) -> None:
        if own is None:
            raise TooFewVectors(
                f"{self.spec}: {left} of {n} vectors are finite, near and new enough, too few for "
                f"f={self.f}; give the own model as own=..., which is kept then, or look at who sent them"
            )
        self.counts.kept_own += 1
        out[:] = own


def make(spec: str, *, f: int | None = None, screen: Screen | None = None, seed: int = 0) -> Pipeline:
    """Build a robust average from its specification.

    Args:
        spec: a rule, ``name:key=value``, with pre-aggregations before it, each followed by a plus:
            "trimmed-mean:f=3", "nnm+trimmed-mean:f=2", "bucketing:size=2+krum". An f that is given once holds
            for all parts.
        f: vectors that may be anything, for parts that do not say; 1 if nothing does.
        screen: which vectors count; those that are finite, and nearer than 1e18, if None.
        seed: what random steps draw from.

    Raises:
        ConfigError: unknown name or option, a value out of range, or parts in the wrong order.
    """
    words = [word.strip() for word in re.split(r"\+(?=\s*[a-z])", spec)]
    if len({text for word in words if (text := _given(word)) is not None}) > 1:
        raise ConfigError(
            f"aggregator {spec!r}: f is given twice, and differently; one f holds for all parts"
        )
    said = next((text for word in words if (text := _given(word)) is not None), None)
    number = said if said is not None else (None if f is None else str(f))
    before: list[PreAggregator] = []
    for word in words[:-1]:
        if word.partition(":")[0].strip() in aggregators:
            raise ConfigError(
                f"aggregator {spec!r}: {word!r} is a rule, and rules come last, after pre-aggregations"
            )
        before.append(preaggregators.make(_with(word, number)))
    last = words[-1]
    if last.partition(":")[0].strip() in preaggregators:
        raise ConfigError(
            f"aggregator {spec!r} ends with a pre-aggregation; add a rule, as in {spec}+trimmed-mean"
        )
    plain_mean = last.partition(":")[0].strip() == "mean" and before  # what comes before may make it robust
    rule = aggregators.make(last if plain_mean and number != _given(last) else _with(last, number))
    return Pipeline(spec, before, rule, screen or Screen(), seed)


def _given(word: str) -> str | None:
    for item in word.partition(":")[2].split(","):
        key, _, value = item.partition("=")
        if key.strip() == "f":
            return value.strip()
    return None


def _with(word: str, f: str | None) -> str:
    if f is None or _given(word) is not None:
        return word
    return f"{word}{',' if word.partition(':')[2] else ':'}f={f}"


def _name(part: Part) -> str:
    known: dict[Any, str] = {preaggregators.get(name): name for name in preaggregators}
    known |= {aggregators.get(name): name for name in aggregators}
    return known[type(part)]
