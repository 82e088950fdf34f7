"""How fast virtual peers compute: the same for all, or stragglers among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.registry import Registry

Factors = NDArray[np.float64]
_KEPT = 256  # steps whose draws are remembered; peers are never that many steps apart


class Stragglers(ABC):
    """By which factors steps take longer than the step time that was asked for."""

    @abstractmethod
    def factors(self, own: np.random.Generator, step: np.random.Generator, size: int) -> Factors:
        """Of all peers in one step, shape (size,).

        Args:
            own: draws what a peer keeps; the same in every step.
            step: draws what is new in every step.
            size: number of peers.
        """


stragglers: Registry[Stragglers] = Registry("stragglers")


def make(spec: str) -> Stragglers:
    """Build stragglers from ``lognormal:0.5``, or ``lognormal:sigma=0.5``.

    Raises:
        ConfigError: unknown name or option, or a value out of its range.
    """
    name, colon, rest = spec.partition(":")
    if colon and "=" not in rest:
        names = [option.name for option in stragglers.options(name.strip())]
        words = rest.split(",")
        if len(words) > len(names):
            raise ConfigError(f"stragglers {spec!r}: {name} takes {', '.join(names) or 'no options'}")
        rest = ",".join(f"{key}={word}" for key, word in zip(names, words, strict=False))
    return stragglers.make(f"{name}:{rest}" if rest else name)


@stragglers.register("none")
@dataclass(frozen=True)
class Alike(Stragglers):
    """All steps take the same time."""

    def factors(self, own: np.random.Generator, step: np.random.Generator, size: int) -> Factors:
        """Ones."""
        return np.ones(size)


@stragglers.register("lognormal")
@dataclass(frozen=True)
class Lognormal(Stragglers):
    """Every step of every peer is drawn anew: exp(sigma z), z standard normal, so the median is 1.

    Args:
        sigma: 0.5 makes one step in twenty take more than 2.3 times as long.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        _check("lognormal.sigma", self.sigma)

    def factors(self, own: np.random.Generator, step: np.random.Generator, size: int) -> Factors:
        """New ones."""
        return np.exp(self.sigma * step.standard_normal(size))


@stragglers.register("speeds")
@dataclass(frozen=True)
class Speeds(Stragglers):
    """Machines differ for good: each peer has one factor exp(sigma z).

    Args:
        sigma: as of lognormal.
    """

    sigma: float = 0.5

    def __post_init__(self) -> None:
        _check("speeds.sigma", self.sigma)

    def factors(self, own: np.random.Generator, step: np.random.Generator, size: int) -> Factors:
        """Those of the first step."""
        return np.exp(self.sigma * own.standard_normal(size))


@stragglers.register("slow")
@dataclass(frozen=True)
class Slow(Stragglers):
    """A share of the peers is slower for good.

    Args:
        share: of the peers, drawn.
        factor: how many times as long their steps take.
    """

    share: float = 0.1
    factor: float = 4.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0:
            raise ConfigError(f"slow.share must be in [0, 1], got {self.share}")
        _check("slow.factor", self.factor)

    def factors(self, own: np.random.Generator, step: np.random.Generator, size: int) -> Factors:
        """The factor for as many as the share says."""
        factors = np.ones(size)
        factors[own.permutation(size)[: round(self.share * size)]] = self.factor
        return factors


def _check(name: str, value: float) -> None:
    if not 0.0 <= value < np.inf:
        raise ConfigError(f"{name} must be at least 0 and finite, got {value}")


class Paces:
    """How long every step of every peer takes, as the seed says; in whatever order it is asked for.

    Args:
        kind: of stragglers.
        step_s: what a step takes at factor 1.
        size: number of peers.
        seed: decides all.
    """

    def __init__(self, kind: Stragglers, step_s: float, size: int, seed: int) -> None:
        self._kind, self._step_s, self._size, self._seed = kind, step_s, size, seed
        self._known: OrderedDict[int, Factors] = OrderedDict()

    @property
    def vary(self) -> bool:
        """Whether peers may differ."""
        return self._step_s > 0 and not isinstance(self._kind, Alike)

    def seconds(self, step: int) -> Factors:
        """Of all peers, shape (size,), for their step of that number."""
        if step not in self._known:
            own, new = (np.random.default_rng([self._seed, *key]) for key in ((12,), (13, step)))
            self._known[step] = self._step_s * self._kind.factors(own, new, self._size)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[step]
