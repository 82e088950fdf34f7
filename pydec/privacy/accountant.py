"""What noised steps have told about any one sample: Renyi differential privacy, added up over the steps.

A step that takes each sample with probability ``rate``, clips its gradient to norm C, and adds Gaussian noise
of deviation ``noise`` * C to the sum, is a sampled Gaussian mechanism; opacus computes its Renyi divergences
(Mironov, Talwar, Zhang, arXiv:1908.10530, section 3.3). Those of all steps add up, whatever each step's
model was and whoever chose it (Mironov, arXiv:1702.07476, proposition 1), and become (epsilon, delta) at the
best of many orders (Balle et al., arXiv:1905.09982, theorem 21).

Two data sets are neighbours if one has one sample more than the other ("add or remove one"); how many samples
there are in all counts as public, as it decides ``rate``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError, SetupError

# opacus's own, and larger ones for little noise; the bound holds at each, so others could only be tighter
ORDERS = (
    *(1 + x / 10 for x in range(1, 100)),
    *range(11, 64),
    *(64, 80, 96, 128, 192, 256, 384, 512, 768, 1024),
)
_LEAST = 1e-12  # of a divergence: above what its sums lose by rounding
_MOST_NOISE = 1e4
_DIGITS = 4  # of a noise that is computed


@dataclass(frozen=True)
class Mechanism:
    """A sampled Gaussian mechanism.

    Args:
        noise: deviation of the noise, in clipping norms; above 0.
        rate: probability with which a step takes a sample, in (0, 1].

    Raises:
        ConfigError: out of range.
    """

    noise: float
    rate: float

    def __post_init__(self) -> None:
        if not (self.noise > 0.0 and math.isfinite(self.noise)):
            raise ConfigError(f"the noise must be above 0 and finite, got {self.noise}")
        if not 0.0 < self.rate <= 1.0:
            raise ConfigError(
                f"a step takes a sample with a probability in (0, 1], got {self.rate}: the batch may not be "
                "larger than the data"
            )


Spent = Mapping[Mechanism, int]
"""Steps that were taken with each mechanism."""


def epsilon(spent: Spent, delta: float) -> float:
    """The epsilon of all steps together, at ``delta``; 0 if there were none, infinite if nothing is bounded.

    Args:
        spent: steps by mechanism.
        delta: in (0, 1).

    Raises:
        SetupError: opacus is not installed.
    """
    check_delta(delta)
    total = np.zeros(len(ORDERS))
    for mechanism, steps in spent.items():
        if steps:
            total += steps * _divergences(mechanism)
    if not total.any():
        return 0.0
    # opacus warns where the best order is the first or the last, and these two are never the best
    orders, bounds = [1.05, *ORDERS, 2048.0], [math.inf, *total, math.inf]
    if not np.isfinite(total).any():
        return math.inf
    found, _ = _opacus().get_privacy_spent(orders=orders, rdp=bounds, delta=delta)
    return max(0.0, float(found))


def affordable(budget: float, delta: float, mechanism: Mechanism, spent: Spent) -> int:
    """How many more steps a budget of epsilon allows; at most 10^9.

    Args:
        budget: epsilon that may be spent in all.
        delta: in (0, 1).
        mechanism: of the coming steps.
        spent: so far.
    """

    def after(steps: int) -> float:
        return epsilon({**spent, mechanism: spent.get(mechanism, 0) + steps}, delta)

    low, high = 0, 1
    if after(0) > budget:
        return 0
    while after(high) <= budget:
        low, high = high, 2 * high
        if low > 1e9:
            return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if after(middle) <= budget else (low, middle)
    return low


def noise_for(budget: float, delta: float, rate: float, steps: int) -> float:
    """The smallest noise, to four digits, with which so many steps stay within a budget of epsilon.

    Args:
        budget: epsilon, above 0.
        delta: in (0, 1).
        rate: see ``Mechanism``.
        steps: at least 1.

    Raises:
        ConfigError: no noise below 10,000 does.
    """

    def spends(noise: float) -> float:
        return epsilon({Mechanism(noise, rate): steps}, delta)

    low, high = 1e-2, 1.0
    while spends(high) > budget:
        low, high = high, 2 * high
        if high > _MOST_NOISE:
            raise ConfigError(
                f"no noise below {_MOST_NOISE:g} keeps {steps} steps within epsilon {budget:g} at delta "
                f"{delta:g}; allow a larger epsilon or delta, fewer steps or smaller batches"
            )
    while high - low > 10.0**-_DIGITS * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if spends(middle) <= budget else (middle, high)
    step = 10.0 ** (math.floor(math.log10(high)) + 1 - _DIGITS)
    rounded = float(f"{math.ceil(high / step) * step:.{_DIGITS}g}")
    return rounded if spends(rounded) <= budget else float(f"{rounded + step:.{_DIGITS}g}")


def check_delta(delta: float) -> None:
    """Raise ConfigError unless ``delta`` is in (0, 1)."""
    if not 0.0 < delta < 1.0:
        raise ConfigError(
            f"delta must be in (0, 1), got {delta}; take much less than one over the number of samples"
        )


def default_delta(samples: int) -> float:
    """``samples`` to the power -1.1: less than the chance of who publishes one sample at random."""
    return float(f"{samples**-1.1:.2g}") if samples > 1 else 0.1


@cache
def _divergences(mechanism: Mechanism) -> NDArray[np.float64]:
    """Of one step, by order; infinite where opacus's sums do not converge, so that other orders decide."""
    compute = _opacus().compute_rdp
    found = np.full(len(ORDERS), math.inf)
    for i, order in enumerate(ORDERS):
        try:
            one = compute(q=mechanism.rate, noise_multiplier=mechanism.noise, steps=1, orders=float(order))
        except (ArithmeticError, ValueError):
            continue
        found[i] = one
    known = np.isfinite(found)
    # they grow with the order, and where they are tiny rounding may hide it
    found[known] = np.maximum.accumulate(np.maximum(found[known], _LEAST))
    return found


def version() -> str:
    """Of opacus.

    Raises:
        SetupError: it is not installed.
    """
    _opacus()
    return str(import_module("opacus").__version__)


def _opacus() -> Any:
    """opacus's functions; loading them takes seconds and is left to who needs them."""
    try:
        return import_module("opacus.accountants.analysis.rdp")
    except ModuleNotFoundError as error:
        raise SetupError(
            f"privacy needs opacus, which counts what noised steps tell, and {error.name} is not installed; "
            "pip install 'pydec-train[privacy]'"
        ) from error
