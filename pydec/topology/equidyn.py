"""EquiDyn graphs: one neighbour, at a random distance that is new in every round."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pydec.errors import ConfigError
from pydec.topology.base import SymmetricTopology, Topology, check_size, topologies
from pydec.topology.draw import Draws, check_seed, draw_key


class _EquiDyn(Topology):
    """What the two have in common: W = (1 - eta) I + eta A, A with (size - 1) / size off its diagonal.

    Args:
        name: the registered name.
        size: number of ranks.
        eta: share of the exchange, in (0, 1).
        seed: shared by all peers.
    """

    def __init__(self, name: str, size: int, eta: float, seed: int) -> None:
        check_size(size)
        if not 0.0 < eta < 1.0:
            raise ConfigError(f"{name} needs eta in (0, 1), got eta={eta}")
        super().__init__(f"{name}:eta={eta:g}", size, period=0, finite_time=None)
        self.seed = check_seed(seed)
        self.eta = eta
        self._weight = eta * (size - 1) / size

    def _drawn(self, slot: int) -> tuple[int, int]:
        """Shift in [1, size) and starting rank of a round."""
        draws = Draws(draw_key(b"pydec equidyn", self.seed, slot))
        return 1 + draws.below(self.size - 1), draws.below(self.size)

    @property
    def degree(self) -> int:
        """One, or zero if there is nobody else."""
        return min(1, self.size - 1)

    @property
    def identity(self) -> str:
        """The seed."""
        return f"seed {self.seed}"


class ODEquiDyn(_EquiDyn):
    """Rank r hears r + v in a round, v drawn anew for all."""

    def __init__(self, size: int, eta: float, seed: int) -> None:
        super().__init__("od-equidyn", size, eta, seed)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        if self.size == 1:
            return 1.0, {}
        return 1.0 - self._weight, {(rank + self._drawn(slot)[0]) % self.size: self._weight}

    def _listeners(self, rank: int, slot: int) -> list[int]:
        return [(rank - self._drawn(slot)[0]) % self.size] if self.size > 1 else []

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round."""
        return float(self.degree)

    @property
    def is_symmetric(self) -> bool:
        """False, but for two ranks."""
        return self.size <= 2

    def _gap(self) -> float:
        c = self._weight
        # |1 - c + c w^v|^2 over the shifts v, w any root of unity but 1: the w^v sum to -1.
        return 1.0 - math.sqrt(1 - 2 * c * (1 - c) * self.size / (self.size - 1))


class OUEquiDyn(_EquiDyn, SymmetricTopology):
    """Ranks at distance v pair up in a round, going round from a random start; v is drawn anew."""

    def __init__(self, size: int, eta: float, seed: int) -> None:
        super().__init__("ou-equidyn", size, eta, seed)

    def _row(self, rank: int, slot: int) -> tuple[float, dict[int, float]]:
        if self.size == 1:
            return 1.0, {}
        shift, start = self._drawn(slot)
        place = _partner((rank - start) % self.size, min(shift, self.size - shift), self.size)
        if place is None:
            return 1.0, {}
        return 1.0 - self._weight, {(start + place) % self.size: self._weight}

    @cached_property
    def _paired(self) -> NDArray[np.float64]:
        """Share of the ranks that have a partner, by shift; shape (size,), 0 for shift 0."""
        n = self.size
        shifts = np.arange(1, n)
        shifts = np.minimum(shifts, n - shifts)
        rest = n % (2 * shifts)
        return np.concatenate([[0.0], 1 - np.minimum(rest, 2 * shifts - rest) / n])

    @property
    def messages_per_round(self) -> float:
        """Messages that one rank sends in one round, expected."""
        return float(self._paired.sum()) / (self.size - 1) if self.size > 1 else 0.0

    def _gap(self) -> float:
        # W = I - c L, L the Laplacian of a matching, L^2 = 2 L; the mean of L over starts and shifts is
        # circulant with the eigenvalues mean_v paired_v (1 - cos(2 pi k v / n)).
        c = self._weight
        waves = np.fft.fft(self._paired).real
        slowest = float((waves[0] - waves[1:]).min()) / (self.size - 1)
        return 1.0 - math.sqrt(1 - 2 * c * (1 - c) * slowest)


def _partner(place: int, shift: int, n: int) -> int | None:
    """Partner of a place if 0, 1, ... in turn pair with the one at ``shift`` <= n / 2 where both are free.

    Blocks of ``shift`` places alternate: even ones pair forward, odd ones were paired by the block
    before. The last even block may lack partners: round the corner everyone is taken.
    """
    if place // shift % 2:
        return place - shift
    return place + shift if place + shift < n else None


@topologies.register("od-equidyn")
def od_equidyn(size: int, eta: float = 0.5, seed: int = 0) -> Topology:
    """Every rank hears one other, at a random distance that is the same for all in a round: directed.

    W = (1 - eta) I + eta ((size - 1) / size S^v + I / size). The squared distance to the mean falls per
    round by the expected factor 1 - 2 c (1 - c) size / (size - 1), c = eta (size - 1) / size, best
    near eta = 1/2, where it is about 1/2 whatever the size. The source uses eta = 0.53.

    Source: Song, Li, Jin, Shi, Yan, Yin, Yuan, "Communication-Efficient Topologies for Decentralized
    Learning with O(1) Consensus Rate", NeurIPS 2022, arXiv:2210.07881, OD-EquiDyn over all shifts.

    Args:
        size: number of ranks.
        eta: share of the exchange, in (0, 1).
        seed: shared by all peers, in [0, 2^256).
    """
    return ODEquiDyn(size, eta, seed)


@topologies.register("ou-equidyn")
def ou_equidyn(size: int, eta: float = 0.5, seed: int = 0) -> Topology:
    """Ranks pair with one at a random distance, the same for all in a round: symmetric, some idle.

    W = (1 - eta) I + eta A, A with (size - 1) / size for each pair. Starting from a random rank, each
    in turn pairs with the one at the distance if both are free. A shift above size / 2 is taken as
    the one the other way round, which makes the same edges.

    Source: Song, Li, Jin, Shi, Yan, Yin, Yuan, "Communication-Efficient Topologies for Decentralized
    Learning with O(1) Consensus Rate", NeurIPS 2022, arXiv:2210.07881, OU-EquiDyn over all shifts.

    Args:
        size: number of ranks.
        eta: share of the exchange, in (0, 1).
        seed: shared by all peers, in [0, 2^256).
    """
    return OUEquiDyn(size, eta, seed)
