"""How far apart the models are, estimated from what mixing moves, with one number more in every packet."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from pydec import compress
from pydec.compress.base import Bytes
from pydec.compress.mirror import head_of
from pydec.errors import FrameError
from pydec.gossip.base import Mixer
from pydec.topology.base import Topology

_NUMBERS = struct.Struct("<dd")
_EXACT_SIZE = 1024  # up to here a static graph's constant is a singular value; above it is the gap


class NumbersMixer(Mixer):
    """Two numbers that travel with every round: one is averaged, of the other the largest survives."""

    prefix: ClassVar[int] = _NUMBERS.size

    def __init__(self) -> None:
        super().__init__(np.zeros(1, np.float32), compress.make("none"), 1)
        self.average = 0.0
        self.largest = 0.0

    def capacity(self, bucket: int) -> int:
        """16."""
        return _NUMBERS.size

    def encode(self, bucket: int, out: Bytes, key: int = 0) -> int:
        """Both numbers."""
        _NUMBERS.pack_into(head_of(out), 0, self.average, self.largest)
        return _NUMBERS.size

    def absorb(self, bucket: int, own: Bytes, packets: Sequence[Bytes], weights: Sequence[float]) -> None:
        """Mix the one, keep the largest of the other."""
        heard = [_numbers(packet) for packet in packets]
        self.average *= 1.0 - sum(weights)
        for (average, largest), weight in zip(heard, weights, strict=True):
            self.average += weight * average
            self.largest = max(self.largest, largest)

    def decodes(self, bucket: int, body: Bytes) -> bool:
        """Whether there are two finite numbers."""
        try:
            _numbers(body)
        except FrameError:
            return False
        return True


def _numbers(packet: Bytes) -> tuple[float, float]:
    if packet.size != _NUMBERS.size:
        raise FrameError(f"expected {_NUMBERS.size} bytes with two numbers, got {packet.size}")
    average, largest = _NUMBERS.unpack_from(head_of(packet))
    if not (math.isfinite(average) and math.isfinite(largest)):
        raise FrameError(f"expected two finite numbers, got {average} and {largest}")
    return average, largest


class Estimator:
    """Estimates the root mean square distance of the ranks' models to their mean, without an all-reduce.

    Rank i knows theta_i = ||sum_j w_ij x_j - x_i||. On a static graph the distance is at most
    sqrt(mean theta^2) / s, s the smallest singular value of I - W on disagreements, which is
    1 - lambda_2 for a symmetric W. On a schedule of p rounds whose matrices are projections or
    averages of two shifts, theta^2 summed over a period is what the period removes of the squared
    distance. The mean over the ranks is tracked with one gossiped number:
    s_i <- sum_j w_ij s_j + theta_i^2 - theta_i^2 of before, whose sum is always that of theta^2.

    Source: the control of the consensus distance by Kong, Lin, Koloskova, Jaggi, Stich, "Consensus
    Control for Decentralized Deep Learning", ICML 2021, arXiv:2102.04828; tracking as in Zhu,
    Martinez, "Discrete-time dynamic average consensus", Automatica 2010.

    Args:
        topology: of the rounds.
        numbers: the mixer that carries s.
    """

    def __init__(self, topology: Topology, numbers: NumbersMixer) -> None:
        self._numbers = numbers
        window, self._divisor = _constants(topology)
        self._moves: deque[float] = deque([0.0] * window, maxlen=window)
        self._told = 0.0

    def update(self, moved: float) -> None:
        """Take in theta_i^2 of the round that is over."""
        if not math.isfinite(moved):
            moved = 0.0  # models with NaN are reported elsewhere; the tracker must live on
        self._moves.append(moved)
        local = math.fsum(self._moves)
        self._numbers.average += local - self._told
        self._told = local

    @property
    def distance(self) -> float:
        """The estimate, nearly the same on all ranks."""
        return math.sqrt(max(self._numbers.average, 0.0)) / self._divisor

    def numbers(self) -> list[float]:
        """What a checkpoint must hold."""
        return [self._numbers.average, self._told, *self._moves]

    def load_numbers(self, numbers: Sequence[float]) -> None:
        """Take back what ``numbers`` gave."""
        self._numbers.average, self._told = numbers[:2]
        self._moves.extend(numbers[2:])


def _constants(topology: Topology) -> tuple[int, float]:
    """Rounds to add up, and what to divide the root of their sum by."""
    if topology.size == 1:
        return 1, 1.0
    if topology.period == 1 and topology.size <= _EXACT_SIZE:
        mixing = topology.weights(0)
        rest = np.eye(topology.size) - mixing + 1.0 / topology.size  # the mean's direction gets the value 1
        return 1, float(np.linalg.svd(rest, compute_uv=False)[-1])
    gap = topology.spectral_gap()
    if topology.period == 1:
        return 1, gap
    window = topology.finite_time or topology.period or 1
    return window, math.sqrt(1.0 - (1.0 - gap) ** (2 * window))
