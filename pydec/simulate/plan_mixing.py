"""How far apart peers are and how fast they come together, from a topology's matrices alone.

With x(t+1) = W_t x(t) + u(t), u independent of peer to peer with E||u||^2 = 1, the mean squared distance to
the mean settles at the sum over k of what k rounds leave of one disturbance, E||(W_k ... W_1 - J) u||^2 / n:
the recursion of D-PSGD with the random part of the local steps for u, which theory bounds by the spectral gap
(Koloskova, Loizou, Boreiri, Jaggi, Stich, "A Unified Theory of Decentralized SGD with Changing Topology and
Local Updates", ICML 2020, arXiv:2003.10422). Here the sum is taken, not bounded: of the matrices themselves
up to 256 peers, from the spectrum of a static symmetric graph up to 1,024, and of normal vectors that sparse
rows mix beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import Topology
from pydec.topology.schedule import SparseRound, sparse_round
from pydec.topology.spectrum import DENSE_SIZES

EXACT_PEERS = 256
MOST_MESSAGES = 1 << 22
"""Messages of one round up to which rows are looked at: a complete graph of 2,048."""
_COLUMNS = 16  # of normal vectors; fewer where they are longer than 2^15: half a million numbers
_NUMBERS = 1 << 19
_STARTS = 8  # rounds of a period from which decay is followed
_SETTLED = 1e-9  # of the squared distance that there was: the rest of the sum is below what is shown
_ROUNDS = 3000
_WORK = 1 << 28  # products of one start, a second or two; at least 64 rounds, which graphs that mix well need
_SPECTRAL_ROUNDS = 100  # the rest follows from the spectrum


@dataclass(frozen=True)
class Mixing:
    """How a topology averages.

    Args:
        size: peers.
        left: ``left[k]`` is the share of the squared distance to the mean that k rounds leave, the mean over
            where in the schedule they begin; ``left[0]`` is 1.
        settled: whether the next would be below 1e-9.
        spectrum: eigenvalues but for that of the mean, of a static symmetric graph that is known by them.
    """

    size: int
    left: tuple[float, ...]
    settled: bool
    spectrum: tuple[float, ...] = ()

    @property
    def gain(self) -> float:
        """Mean squared distance to the mean over that which one round's disturbance makes: at least 1.

        Exact of a graph that is known by its spectrum; otherwise summed as far as rounds were followed, so
        that it is a lower bound where ``settled`` is False.
        """
        if self.spectrum:
            return math.fsum(1 / (1 - value**2) for value in self.spectrum) / len(self.spectrum)
        return math.fsum(self.left)

    def rounds_to(self, distance: float) -> int | None:
        """Rounds until the distance to the mean, not squared, is that share of what it was.

        None if that is further than rounds were followed.
        """
        for rounds, left in enumerate(self.left):
            if left <= distance**2:
                return rounds
        if self.settled:
            return len(self.left)
        values = np.square(self.spectrum)
        if not self.spectrum or values.max() >= 1:
            return None
        low, high = len(self.left) - 1, len(self.left)
        while np.mean(values**high) > distance**2:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if np.mean(values**middle) > distance**2 else (low, middle)
        return high


def rounds_of(topology: Topology) -> Iterator[SparseRound]:
    """The rounds of a schedule, from round 0 on, for ever; those of a period are computed once.

    Raises:
        ConfigError: a round has more messages than rows can be looked at.
    """
    messages = topology.messages_per_round * topology.size
    if messages > MOST_MESSAGES:
        raise ConfigError(
            f"a round of {topology.name} has {messages:,.0f} messages, more than the {MOST_MESSAGES:,} that "
            "are followed; plan a sparser topology, such as one-peer-exponential"
        )
    kept: list[SparseRound] = []
    number = 0
    while True:
        if topology.period and number >= topology.period:
            yield kept[number % topology.period]
        else:
            made = sparse_round(topology, number)
            if topology.period:
                kept.append(made)
            yield made
        number += 1


def mixing(topology: Topology, most_rounds: int = _ROUNDS) -> Mixing:
    """Follow what rounds leave of a disturbance.

    Args:
        topology: of any number of peers.
        most_rounds: that are followed from each start; fewer of many peers.

    Raises:
        ConfigError: see ``rounds_of``.

    Cost: rows of one period, then about size * columns * degree operations a round.
    """
    n = topology.size
    if n == 1:
        return Mixing(1, (1.0,), True)
    if topology.finite_time == 1:
        return Mixing(n, (1.0,), True)
    spectrum: tuple[float, ...] = ()
    if topology.is_static and topology.is_symmetric and n <= DENSE_SIZES:
        spectrum = tuple(np.linalg.eigvalsh(topology.weights(0))[:-1].tolist())
        most_rounds = min(most_rounds, _SPECTRAL_ROUNDS)
    products = (1 + topology.messages_per_round) * n * min(n, columns(n))
    most_rounds = min(most_rounds, max(64, int(_WORK / products)))
    starts = _starts(topology)
    rounds = rounds_of(topology)
    known: list[SparseRound] = []
    curves = [_curve(topology, known, rounds, start, most_rounds) for start in starts]
    longest = max(len(curve) for curve in curves)
    padded = [curve + [0.0] * (longest - len(curve)) for curve in curves]
    left = tuple(float(value) for value in np.mean(padded, axis=0))
    return Mixing(n, left, longest <= most_rounds, spectrum)


def columns(n: int) -> int:
    """How many vectors of n peers are followed at once."""
    return max(2, min(_COLUMNS, _NUMBERS // n))


def _starts(topology: Topology) -> list[int]:
    period = topology.period or _STARTS
    step = max(1, period // _STARTS)
    return list(range(0, period, step))


def _curve(
    topology: Topology, known: list[SparseRound], rounds: Iterator[SparseRound], start: int, most: int
) -> list[float]:
    n = topology.size
    x: NDArray[np.float64]
    if n <= EXACT_PEERS:
        x = np.eye(n)
    else:
        x = np.random.default_rng(start).standard_normal((n, columns(n)))
    x -= x.mean(axis=0)
    whole = float(np.einsum("ij,ij->", x, x))
    curve = [1.0]
    for number in range(start, start + most):
        while len(known) <= (number % topology.period if topology.period else number):
            known.append(next(rounds))
        x = known[number % topology.period if topology.period else number].apply(x)
        x -= x.mean(axis=0)  # only the columns' sums are kept where rows' are not
        left = float(np.einsum("ij,ij->", x, x)) / whole
        if left < _SETTLED:
            break
        curve.append(left)
    return curve
