"""Rules that average coordinate by coordinate: mean, median, trimmed mean, mean around the median."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pydec import kernels
from pydec.aggregate.base import Aggregator, aggregators
from pydec.aggregate.inputs import Inputs, Sorting
from pydec.errors import ConfigError


def _median(x: Sequence[Any], f: int, out: Any, largest: Any = None) -> object:
    return kernels.median(x, out, largest)


@aggregators.register("mean")
@dataclass(frozen=True)
class Mean(Aggregator):
    """The mean: one liar moves it anywhere. Only for comparison, or after a pre-aggregation; f is 0.

    Breakdown: any f > 0 is refused.
    """

    geometric: ClassVar[bool] = False
    slope: ClassVar[int] = 0
    f: int = 0

    def __post_init__(self) -> None:
        if self.f:
            raise ConfigError(
                f"the mean tolerates no vector that may be anything, got f={self.f}; use trimmed-mean or "
                "geometric-median"
            )

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        x.combine(np.full(x.n, 1.0 / x.n), out)


@aggregators.register("median")
@dataclass(frozen=True)
class Median(Aggregator):
    """Coordinate-wise median, the mean of the two middles for even n. Needs no f; it is only checked.

    Breakdown: n >= 2 f + 1.

    Source: Yin, Chen, Kannan, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates", ICML 2018, arXiv:1803.01498, definition 1.
    """

    geometric: ClassVar[bool] = False
    f: int = 0

    @property
    def kernel(self) -> Sorting | None:
        """See ``Aggregator.kernel``."""
        return _median

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        x.by_coordinate(_median, f, out)


@aggregators.register("trimmed-mean")
@dataclass(frozen=True)
class TrimmedMean(Aggregator):
    """Coordinate-wise mean without the f lowest and the f highest values.

    Breakdown: n >= 2 f + 1.

    Source: Yin, Chen, Kannan, Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal
    Statistical Rates", ICML 2018, arXiv:1803.01498, definition 2.
    """

    geometric: ClassVar[bool] = False

    @property
    def kernel(self) -> Sorting | None:
        """See ``Aggregator.kernel``."""
        return kernels.trimmed_mean

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        x.by_coordinate(kernels.trimmed_mean, f, out)


@aggregators.register("mean-around-median")
@dataclass(frozen=True)
class MeanAroundMedian(Aggregator):
    """Coordinate-wise mean of the n - f values closest to the median.

    Breakdown: n >= 2 f + 1.

    Source: Xie, Koyejo, Gupta, "Generalized Byzantine-tolerant SGD", 2018, arXiv:1802.10116.
    """

    geometric: ClassVar[bool] = False

    @property
    def kernel(self) -> Sorting | None:
        """See ``Aggregator.kernel``."""
        return kernels.mean_around_median

    def reduce(self, x: Inputs, f: int, out: Any) -> None:
        """See ``Aggregator.reduce``."""
        x.by_coordinate(kernels.mean_around_median, f, out)
